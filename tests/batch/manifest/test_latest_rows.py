"""The latest row of each image, for Python users and for the reports."""

import asyncio
from pathlib import Path

import pytest

from tests.support.batch_rows import ENDED, LATER_RUN, RUN, failed_row, ok_row, outputs, write_part
from vipsrv.batch import rows_of
from vipsrv.batch.manifest.layout import shard_name
from vipsrv.batch.outputs import Outputs
from vipsrv.batch.rows import Row
from vipsrv.batch.stores.folder_destination import FolderDestination
from vipsrv.errors import StorageFailed

MADE = outputs(320)
OTHER = outputs(640)


def write(folder: Path, *parts: tuple[str, Outputs, list[Row]]) -> None:
    async def write_all() -> None:
        destination = FolderDestination(folder)
        for shard, made, rows in parts:
            await write_part(destination, shard, made, *rows)
        await destination.close()

    asyncio.run(write_all())


def test_an_empty_destination_has_no_rows(tmp_path: Path) -> None:
    assert list(rows_of(tmp_path)) == []


def test_the_rows_of_one_run_come_as_they_are(tmp_path: Path) -> None:
    rows = [ok_row(f"{i}.jpg", MADE) for i in range(4)]
    write(tmp_path, (shard_name(RUN, 1), MADE, rows[:2]), (shard_name(RUN, 2), MADE, rows[2:]))
    assert list(rows_of(tmp_path)) == rows


def test_a_later_row_replaces_an_earlier_one_wherever_it_is(tmp_path: Path) -> None:
    old = [failed_row("a.jpg", MADE), ok_row("b.jpg", MADE), ok_row("c.jpg", MADE, ended=ENDED + 9)]
    new = [ok_row("a.jpg", MADE, ended=ENDED + 5, run=LATER_RUN), ok_row("c.jpg", MADE, run=LATER_RUN)]
    write(
        tmp_path,
        (shard_name(RUN, 1), MADE, old),
        (shard_name(LATER_RUN, 1), MADE, new),
        (shard_name(RUN, 2), MADE, [failed_row("d.jpg", MADE)]),  # of which nothing stays
        (shard_name(LATER_RUN, 3), MADE, [ok_row("d.jpg", MADE, run=LATER_RUN)]),
        (shard_name(LATER_RUN, 2), MADE, [ok_row("b.jpg", MADE, ended=ENDED + 1, run=LATER_RUN)]),
    )
    assert sorted(rows_of(tmp_path), key=lambda row: row.key) == [
        new[0],
        ok_row("b.jpg", MADE, ended=ENDED + 1, run=LATER_RUN),
        old[2],
        ok_row("d.jpg", MADE, run=LATER_RUN),
    ]


def test_each_set_of_options_has_its_own_rows(tmp_path: Path) -> None:
    write(
        tmp_path,
        (shard_name(RUN, 1), MADE, [ok_row("a.jpg", MADE)]),
        (shard_name(LATER_RUN, 1), OTHER, [ok_row("a.jpg", OTHER, run=LATER_RUN)]),
    )
    assert [row.options for row in rows_of(tmp_path)] == [MADE.digest, OTHER.digest]
    assert [row.options for row in rows_of(str(tmp_path), outputs=OTHER)] == [OTHER.digest]
    assert list(rows_of(tmp_path, outputs=outputs(1))) == []


async def test_rows_can_be_read_where_an_event_loop_runs(tmp_path: Path) -> None:
    destination = FolderDestination(tmp_path)
    await write_part(destination, shard_name(RUN, 1), MADE, ok_row("a.jpg", MADE))
    assert [row.key for row in rows_of(destination)] == ["a.jpg"]
    assert await destination.read(".vipsrv/parts/20260102T030405Z-abcdef-000001.parquet")  # still open
    await destination.close()


def test_leaving_the_rows_early_ends_the_thread(tmp_path: Path) -> None:
    write(tmp_path, *((shard_name(RUN, n), MADE, [ok_row(f"{n}.jpg", MADE)]) for n in range(1, 30)))
    rows = rows_of(tmp_path)
    assert next(rows).key == "1.jpg"
    rows.close()


def test_a_destination_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFailed, match="not a folder"):
        next(rows_of(tmp_path / "file"))
