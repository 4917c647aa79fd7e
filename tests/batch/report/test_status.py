"""The status of a destination, and the files that a report writes."""

import csv
import json
import math
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.batch_rows import ENDED, LATER_RUN, RUN, failed_row, ok_row, outputs, write_part
from vipsrv.batch.manifest.journal import ShardFacts
from vipsrv.batch.manifest.layout import shard_name
from vipsrv.batch.manifest.manifest import Manifest
from vipsrv.batch.manifest.parts import part_bytes
from vipsrv.batch.manifest.run_record import RunEnd, RunRecord
from vipsrv.batch.report.failures_file import write_failures
from vipsrv.batch.report.figures import FAILURES_OF_A_CODE, SLOWEST, figures_of
from vipsrv.batch.report.page import report_page
from vipsrv.batch.report.status import next_steps, runs_of, status_json, status_lines, status_of
from vipsrv.batch.stores.folder_destination import FolderDestination
from vipsrv.batch.stores.interface import Destination
from vipsrv.errors import BatchError

MADE = outputs(320, 640)


@pytest.fixture
async def destination(tmp_path: Path) -> AsyncIterator[Destination]:
    made = FolderDestination(tmp_path / "out")
    yield made
    await made.close()


def record(end: RunEnd, *, run: str = LATER_RUN, host: str | None = None, reason: str = "") -> RunRecord:
    begun = replace(
        RunRecord.begin(run, source="/photos", outputs=MADE), started=ENDED, host=host or socket.gethostname()
    )
    if end is RunEnd.NOT_YET:
        return begun
    return replace(
        begun.with_end(end, reason=reason, listed=3, listing_done=True, skipped=0), ended=ENDED + 2000
    )


async def filled(destination: Destination) -> None:
    await write_part(
        destination,
        shard_name(RUN, 1),
        MADE,
        ok_row("a.jpg", MADE, size=10_000),
        ok_row("b.jpg", MADE, size=30_000),
        failed_row("c.jpg", MADE),
        failed_row("d.jpg", MADE, status=413, code="too_large"),
    )
    await write_part(
        destination, shard_name(LATER_RUN, 1), MADE, ok_row("d.jpg", MADE, ended=ENDED + 1000, run=LATER_RUN)
    )


async def test_the_figures_count_the_latest_row_of_each_image(destination: Destination) -> None:
    await filled(destination)
    figures = await figures_of(Manifest(destination))
    assert (figures.done, figures.results, figures.failures_count) == (3, 6, 1)
    assert dict(figures.failed) == {(422, "corrupt_image"): 1}
    assert (figures.bytes_in, figures.bytes_out) == (50_000, 6000)
    assert figures.ratio == pytest.approx(50 / 6)
    assert figures.formats["webp"].results == 6
    assert figures.formats["webp"].pixels == 3 * (320 + 640) * 240
    assert figures.ratios.total == 3
    assert [(one.done, one.failed) for one in figures.options.values()] == [(3, 1)]
    assert (figures.runs[RUN].done, figures.runs[RUN].failed) == (2, 1)
    assert figures.runs[LATER_RUN].last_ended == ENDED + 1000
    assert [row.key for row in figures.failures["corrupt_image"]] == ["c.jpg"]


async def test_lists_have_a_bound_and_the_slowest_are_the_slowest(destination: Destination) -> None:
    for number in range(3):
        rows = [replace(failed_row(f"{number}-{i}.jpg", MADE), ms=float(100 * number + i)) for i in range(60)]
        await write_part(destination, shard_name(RUN, number + 1), MADE, *rows)
    figures = await figures_of(Manifest(destination))
    assert figures.failures_count == 180
    assert len(figures.failures["corrupt_image"]) == FAILURES_OF_A_CODE
    assert [row.ms for row in figures.slowest] == [float(259 - i) for i in range(SLOWEST)]


async def test_an_empty_destination(destination: Destination) -> None:
    status = await status_of(destination)
    assert list(status_lines(status)) == [destination.url, f"  {'':13}  no batch has been here"]
    assert status_json(status)["done"] == 0
    assert status_json(status)["ratio"] is None


async def test_the_lines_of_a_status(destination: Destination) -> None:
    await filled(destination)
    await Manifest(destination).write_run(record(RunEnd.COMPLETE))
    text = "\n".join(status_lines(await status_of(destination)))
    assert "done           3 images, 6 results" in text
    assert "1  422 corrupt_image" in text
    assert "50 kB of images → 6 kB of results (ratio 8.33)" in text
    assert "of /photos, 1 image, 2 s, 0.5 images/s, complete" in text
    assert "--retry-failed corrupt_image" in text
    assert f"vipsrv batch report {destination.url}" in text


async def test_the_json_of_a_status(destination: Destination) -> None:
    await filled(destination)
    await Manifest(destination).write_run(record(RunEnd.COMPLETE))
    values = json.loads(json.dumps(status_json(await status_of(destination))))
    assert (values["done"], values["failed"], values["results"], values["parts"]) == (3, 1, 6, 2)
    assert values["failed_by_code"] == [{"status": 422, "code": "corrupt_image", "images": 1}]
    assert values["options"][0]["digest"] == MADE.digest
    assert values["options"][0]["outputs"]["name"] == MADE.name
    assert [(run["run"], run["end"], run["done"]) for run in values["runs"]] == [
        (RUN, "", 2),
        (LATER_RUN, "complete", 1),
    ]
    assert values["running"] is None


async def test_rows_of_a_journal_are_told_apart_and_left_where_they_are(destination: Destination) -> None:
    manifest = Manifest(destination)
    lock = manifest.lock(RUN)
    journal = manifest.begin_shard(shard_name(RUN, 1), MADE)
    journal.append(ok_row("a.jpg", MADE))
    journal.append(failed_row("b.jpg", MADE))
    status = await status_of(destination)
    assert (status.unpublished.done, status.unpublished.failed, status.unpublished.shards) == (1, 1, 1)
    assert status.running is not None
    assert status.running.run == RUN
    assert next_steps(status) == []
    assert "2 rows of 1 shard, not yet in a part" in "\n".join(status_lines(status))
    lock.release()
    journal.close()
    status = await status_of(destination)
    assert status.running is None
    assert next_steps(status) == ["A run was killed. The same command goes on with what is missing."]
    assert journal.path.exists()


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (record(RunEnd.COMPLETE), None),
        (record(RunEnd.STOPPED), "The last run was stopped. The same"),
        (record(RunEnd.FAILED, reason="disk full"), "The last run failed: disk full. The same"),
        (record(RunEnd.NOT_YET), "The last run was killed. The same"),
        (record(RunEnd.NOT_YET, host="node-7"), "The last run was killed, or is at work on node-7. The same"),
    ],
)
async def test_how_to_go_on(destination: Destination, last: RunRecord, told: str | None) -> None:
    await Manifest(destination).write_run(record(RunEnd.FAILED, run=RUN))
    await Manifest(destination).write_run(last)
    steps = next_steps(await status_of(destination))
    assert [step.startswith(told) for step in steps] == [True] if told else steps == []


async def test_a_run_without_a_record_is_known_by_its_rows(destination: Destination) -> None:
    await filled(destination)
    first, second = runs_of(await status_of(destination))
    assert (first.run, first.end, first.done, first.started) == (RUN, "", 2, ENDED)
    assert first.rate is None
    assert second.run == LATER_RUN


async def test_all_failures_as_lines(destination: Destination, tmp_path: Path) -> None:
    rows = [failed_row(f"{i}.jpg", MADE, message="ü\n2") for i in range(120)]
    await write_part(destination, shard_name(RUN, 1), MADE, *rows, ok_row("ok.jpg", MADE))
    assert await write_failures(Manifest(destination), tmp_path / "f.jsonl") == 120
    lines = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == [row.key for row in rows]
    assert lines[0]["message"] == "ü\n2"
    assert lines[0]["code"] == "corrupt_image"


async def test_a_key_is_no_formula_of_a_spreadsheet(destination: Destination, tmp_path: Path) -> None:
    keys = ["=1+1.jpg", "@x.jpg", "-a.jpg", 'a,"b"\n.jpg']
    await write_part(destination, shard_name(RUN, 1), MADE, *(failed_row(key, MADE) for key in keys))
    assert await write_failures(Manifest(destination), tmp_path / "f.CSV") == 4
    with (tmp_path / "f.CSV").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["key"] for row in read] == ["'=1+1.jpg", "'@x.jpg", "'-a.jpg", 'a,"b"\n.jpg']
    assert read[0]["status"] == "422"


async def test_a_part_of_another_program_is_told_or_refused(destination: Destination) -> None:
    odd = replace(failed_row("a.jpg", MADE), ms=math.inf, ended=2**62)
    facts = ShardFacts(shard="odd", run=RUN, options="x", outputs="[" * 100_000, tool="")
    await destination.write(".vipsrv/parts/odd.parquet", part_bytes(facts, [odd]))
    found = await status_of(destination)
    assert status_json(found)["options"][0]["outputs"] == facts.outputs
    assert "unknown" in "".join(status_lines(found))
    assert "unknown" in report_page(found)
    huge = replace(
        ok_row("b.jpg", MADE), outputs=(replace(ok_row("b.jpg", MADE).outputs[0], bytes=2**62),) * 3
    )
    await destination.write(".vipsrv/parts/huge.parquet", part_bytes(facts, [huge]))
    with pytest.raises(BatchError, match="cannot be counted"):
        await status_of(destination)
