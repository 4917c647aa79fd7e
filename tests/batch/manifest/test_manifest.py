"""The manifest of a destination: publishing, recovery after a death at any step, and the lock."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.batch_rows import ENDED, RUN, failed_row, ok_row, outputs
from vipsrv.batch.manifest.journal import Journal
from vipsrv.batch.manifest.layout import journal_folder, new_run_id, part_key, run_of, shard_name
from vipsrv.batch.manifest.manifest import Manifest, Recovery
from vipsrv.batch.rows import Row
from vipsrv.batch.stores.folder_destination import FolderDestination
from vipsrv.errors import BatchError, StorageFailed

MADE = outputs(320, 640)
SHARD = shard_name(RUN, 1)


def rows(*names: str, ended: int = ENDED) -> list[Row]:
    return [ok_row(f"{name}.jpg", MADE, ended=ended) for name in names]


@pytest.fixture
async def manifest(tmp_path: Path) -> AsyncIterator[Manifest]:
    destination = FolderDestination(tmp_path / "out")
    yield Manifest(destination)
    await destination.close()


def begun(manifest: Manifest, *written: Row, shard: str = SHARD) -> Journal:
    journal = manifest.begin_shard(shard, MADE)
    for row in written:
        journal.append(row)
    return journal


async def published(manifest: Manifest) -> list[Row]:
    return [row async for part in manifest.parts(await manifest.part_keys()) for row in part.rows()]


def test_run_ids_sort_by_time_and_shards_by_number() -> None:
    run = new_run_id()
    names = [shard_name(run, number) for number in (1, 2, 10, 100_000)]
    assert names == sorted(names)
    assert {run_of(name) for name in names} == {run}
    assert new_run_id() != run


def test_journals_are_at_a_folder_and_otherwise_in_the_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert journal_folder("/data/out") == Path("/data/out/.vipsrv/journal")
    assert journal_folder("file:///data/my%20out") == Path("/data/my out/.vipsrv/journal")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    bucket = journal_folder("s3://bucket/results")
    assert bucket.parent == Path("/state/vipsrv/batch")
    assert journal_folder("s3://bucket/results/") == bucket
    assert journal_folder("s3://bucket/other") != bucket
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert journal_folder("s3://bucket/results") != bucket
    container = journal_folder("az://container/results")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "other")
    assert journal_folder("az://container/results") != container
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert journal_folder("s3://bucket").parent == Path.home() / ".local/state/vipsrv/batch"


def test_a_user_without_a_home_names_the_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # a container may run with any number
    with pytest.raises(BatchError, match="set XDG_STATE_HOME"):
        journal_folder("s3://bucket/results")


async def test_a_finished_shard_is_a_part_and_no_journal(manifest: Manifest) -> None:
    await manifest.publish(begun(manifest, *rows("a", "b")))
    assert await published(manifest) == rows("a", "b")
    assert manifest.unpublished() == []
    assert await manifest.part_keys() == [part_key(SHARD)]


async def test_a_shard_without_rows_leaves_nothing(manifest: Manifest) -> None:
    await manifest.publish(begun(manifest))
    assert await manifest.part_keys() == []
    assert manifest.unpublished() == []


async def test_the_journal_of_a_dead_run_is_published(manifest: Manifest) -> None:
    journal = begun(manifest, *rows("a", "b"))
    journal.close()
    with journal.path.open("ab") as file:
        file.write(b'{"key": "torn')
    assert await manifest.recover() == Recovery(shards=1, rows=2)
    assert await published(manifest) == rows("a", "b")
    assert not journal.path.exists()
    assert await manifest.recover() == Recovery()


async def test_the_journal_of_a_living_run_is_not(manifest: Manifest) -> None:
    journal = begun(manifest, *rows("a"))
    assert await manifest.recover() == Recovery()
    assert await published(manifest) == []
    journal.append(*rows("b"))
    await manifest.publish(journal)
    assert await published(manifest) == rows("a", "b")


async def test_a_death_between_the_part_and_the_removal_of_the_journal(manifest: Manifest) -> None:
    journal = begun(manifest, *rows("a", "b"))
    left = journal.path.read_bytes()
    await manifest.publish(journal)
    first = await manifest.destination.read(part_key(SHARD))
    journal.path.write_bytes(left)
    assert (await manifest.recover()).rows == 2
    assert await manifest.destination.read(part_key(SHARD)) == first
    assert manifest.unpublished() == []


async def test_a_journal_of_a_dead_node_takes_nothing_from_a_shard_done_elsewhere(manifest: Manifest) -> None:
    partly = begun(manifest, *rows("a", ended=ENDED - 5))
    partly.close()
    kept = partly.path.read_bytes()
    partly.path.unlink()
    await manifest.publish(begun(manifest, *rows("a", "b", "c")))
    partly.path.write_bytes(kept)
    await manifest.recover()
    assert await published(manifest) == rows("a", "b", "c")


async def test_rows_that_only_a_dead_node_has_are_added(manifest: Manifest) -> None:
    await manifest.publish(begun(manifest, *rows("a", "b")))
    begun(manifest, *rows("b", ended=ENDED + 5), *rows("c")).close()
    await manifest.recover()
    assert await published(manifest) == [*rows("a"), *rows("b", ended=ENDED + 5), *rows("c")]


async def test_of_two_rows_of_the_same_moment_that_of_the_journal_stays(manifest: Manifest) -> None:
    (row,) = rows("a")
    again = replace(row, attempts=2)
    await manifest.publish(begun(manifest, row))
    await manifest.publish(begun(manifest, again))
    assert await published(manifest) == [again]


async def test_a_shard_that_is_begun_again_has_its_rows(manifest: Manifest) -> None:
    begun(manifest, *rows("a")).close()
    journal = begun(manifest, *rows("b"))
    assert journal.rows == tuple(rows("a"))
    await manifest.publish(journal)
    assert await published(manifest) == rows("a", "b")


async def test_a_damaged_journal_is_told_kept_and_its_other_rows_published(manifest: Manifest) -> None:
    journal = begun(manifest, *rows("a", "b"))
    journal.close()
    journal.path.write_bytes(journal.path.read_bytes().replace(b'"b.jpg"', b'"b.jpg'))
    found = await manifest.recover()
    assert (found.shards, found.rows) == (1, 1)
    assert "line 3: " in found.faults[0]
    assert found.notes == (f"an earlier run left a damaged journal, which is kept: {found.faults[0]}",)
    assert await published(manifest) == rows("a")
    assert [path.name for path in manifest.journals.iterdir()] == [f"{SHARD}.jsonl.damaged"]
    assert await manifest.recover() == Recovery()


async def test_a_journal_of_a_newer_version_is_left_to_it(manifest: Manifest) -> None:
    newer = manifest.journals / f"{SHARD}.jsonl"
    newer.parent.mkdir(parents=True)
    newer.write_bytes(b'{"vipsrv_journal": 2}\n')
    with pytest.raises(BatchError, match="use a newer one"):
        await manifest.recover()
    assert newer.exists()


async def test_a_journal_that_another_program_removes(manifest: Manifest) -> None:
    journal = begun(manifest, *rows("a"))
    journal.path.unlink()
    with pytest.raises(StorageFailed, match="another program has removed it"):
        await manifest.publish(journal)
    journal.close()


async def test_after_a_start_of_the_machine_only_rows_with_their_results_count(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, lost, cut = rows("there", "lost", "cut")
    begun(manifest, there, lost, cut, failed_row("broken.jpg", MADE)).close()
    for row in (there, lost, cut):
        for output in row.outputs:  # whose digest is that of their own name
            await manifest.destination.write(output.key, output.key.encode())
    await manifest.destination.remove(lost.outputs[1].key)
    await manifest.destination.write(cut.outputs[0].key, b"")
    monkeypatch.setattr("vipsrv.batch.manifest.manifest.boot_id", lambda: "another start")
    found = await manifest.recover()
    assert found == Recovery(shards=1, rows=2, lost=2)
    assert found.notes[0].startswith("2 images of an earlier run are done again")
    assert await published(manifest) == [there, failed_row("broken.jpg", MADE)]


async def test_a_shard_of_before_a_start_of_the_machine_is_not_gone_on_with(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = begun(manifest, *rows("a"))
    left.close()
    monkeypatch.setattr("vipsrv.batch.manifest.journal.boot_id", lambda: "another start")
    journal = begun(manifest)
    assert journal.rows == ()
    assert journal.path != left.path
    journal.close()


async def test_what_lies_beside_the_parts_is_no_part(manifest: Manifest) -> None:
    await manifest.publish(begun(manifest, *rows("a")))
    for key in (".vipsrv/parts/notes.txt", ".vipsrv/parts/old/x.parquet", ".vipsrv/partsx/y.parquet"):
        await manifest.destination.write(key, b"x")
    assert await manifest.part_keys() == [part_key(SHARD)]


async def test_more_parts_than_are_read_at_once_come_in_order(manifest: Manifest) -> None:
    expected = []
    for number in range(40):
        expected += rows(f"image-{number}")
        await manifest.publish(begun(manifest, expected[-1], shard=shard_name(RUN, number + 1)))
    assert await published(manifest) == expected


async def test_leaving_the_parts_early_leaves_no_task(manifest: Manifest) -> None:
    for number in range(20):
        await manifest.publish(begun(manifest, *rows("a"), shard=shard_name(RUN, number + 1)))
    parts = manifest.parts(await manifest.part_keys())
    await anext(parts)
    await parts.aclose()


def test_a_second_run_is_refused_and_told_who_is_at_work(manifest: Manifest) -> None:
    code = (
        "import sys\nfrom vipsrv.batch.manifest.manifest import Manifest\n"
        "from vipsrv.batch.stores.folder_destination import FolderDestination\n"
        "lock = Manifest(FolderDestination(sys.argv[1])).lock('the-run')\n"
        "print('locked', flush=True)\nsys.stdin.read()\n"
    )
    assert manifest.running() is None
    with subprocess.Popen(
        [sys.executable, "-c", code, manifest.destination.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        running = manifest.running()
        assert running is not None
        assert (running.pid, running.run) == (other.pid, "the-run")
        with pytest.raises(BatchError, match=rf"out: process {other.pid} \(run the-run\) is at work on this"):
            manifest.lock("mine")
        other.kill()
        other.wait()
    assert manifest.running() is None
    manifest.lock("mine").release()


def test_a_released_lock_can_be_taken_again(manifest: Manifest) -> None:
    lock = manifest.lock("one")
    with pytest.raises(BatchError, match="is at work"):
        manifest.lock("two")
    lock.release()
    manifest.lock("two").release()


def test_a_folder_that_cannot_be_made_is_a_failed_storage(tmp_path: Path) -> None:
    manifest = Manifest(FolderDestination(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".vipsrv").write_bytes(b"")
    with pytest.raises(StorageFailed):
        manifest.lock("run")
    with pytest.raises(StorageFailed):
        manifest.begin_shard(SHARD, MADE)


async def test_a_failed_row_is_published_like_any_other(manifest: Manifest) -> None:
    row = failed_row("broken.jpg", MADE)
    await manifest.publish(begun(manifest, row))
    assert await published(manifest) == [row]
