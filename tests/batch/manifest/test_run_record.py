"""The record of a run, at its start and at its end."""

import json
from pathlib import Path

import pytest

from tests.support.batch_rows import RUN, outputs
from vipsrv.batch.manifest.manifest import Manifest
from vipsrv.batch.manifest.recorded_run import recorded_run
from vipsrv.batch.manifest.run_record import RunEnd, RunRecord, without_password
from vipsrv.batch.manifest.selection import SelectionCounts
from vipsrv.batch.stores.folder_destination import FolderDestination
from vipsrv.errors import StorageFailed

RECORD = RunRecord.begin(RUN, source="/photos", outputs=outputs(320))


async def recorded(folder: Path, counts: SelectionCounts, rows: int, error: str = "") -> RunRecord:
    manifest = Manifest(FolderDestination(folder))
    if error:
        with pytest.raises(StorageFailed, match=error):
            await run(manifest, counts, rows, StorageFailed("s3://bucket", error))
    else:
        await run(manifest, counts, rows)
    (record,) = await manifest.runs()
    await manifest.destination.close()
    return record


async def run(
    manifest: Manifest, counts: SelectionCounts, rows: int, error: StorageFailed | None = None
) -> None:
    async with recorded_run(manifest, RECORD, counts, lambda: rows):
        assert await manifest.runs() == [RECORD]
        if error is not None:
            raise error


async def test_a_run_with_a_row_for_each_image_is_complete(tmp_path: Path) -> None:
    counts = SelectionCounts(listed=10, selected=6, conflicts=1, done_before=3, ended=True)
    record = await recorded(tmp_path, counts, 7)
    assert (record.end, record.reason) == (RunEnd.COMPLETE, "")
    assert (record.listed, record.skipped, record.listing_done) == (10, 3, True)
    assert record.ended is not None
    assert record.ended >= record.started == RECORD.started


@pytest.mark.parametrize(("ended", "rows"), [(True, 5), (False, 6)])
async def test_a_run_that_lacks_rows_was_stopped(tmp_path: Path, ended: bool, rows: int) -> None:  # noqa: FBT001 - a parameter
    assert (await recorded(tmp_path, SelectionCounts(selected=6, ended=ended), rows)).end is RunEnd.STOPPED


async def test_a_run_that_cannot_go_on_says_why(tmp_path: Path) -> None:
    record = await recorded(tmp_path, SelectionCounts(), 0, "the credentials are no longer valid")
    assert (record.end, record.reason) == (
        RunEnd.FAILED,
        "s3://bucket: the credentials are no longer valid",
    )


async def test_what_is_no_record_is_left_out(tmp_path: Path) -> None:
    manifest = Manifest(FolderDestination(tmp_path))
    for data in (b"", b"[]", b"{}", b'{"end": "somehow"}'):
        await manifest.destination.write(".vipsrv/runs/x.json", data)
        assert await manifest.runs() == []
    await manifest.write_run(RECORD)
    with_more = RECORD.to_json().replace(b"{", b'{"new": 1, ', 1)
    await manifest.destination.write(".vipsrv/runs/z.json", with_more)
    assert await manifest.runs() == [RECORD, RECORD]
    await manifest.destination.close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("/data/a@b:c", "/data/a@b:c"),
        ("s3://bucket/a", "s3://bucket/a"),
        ("sftp://me:secret@host:22/a", "sftp://me@host:22/a"),
        ("sftp://me@host/a", "sftp://me@host/a"),
        ("https://:secret@host/", "https://@host/"),
    ],
)
def test_a_password_is_not_recorded(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize(
    "wrong",
    [{"run": None}, {"source": 7}, {"started": "now"}, {"ended": 10**30}, {"ended": True}, {"end": "no"}],
)
async def test_a_record_of_another_program_is_left_out(tmp_path: Path, wrong: dict[str, object]) -> None:
    manifest = Manifest(FolderDestination(tmp_path))
    await manifest.write_run(RECORD)
    path = tmp_path / ".vipsrv" / "runs" / f"{RUN}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    assert await manifest.runs() == []
    await manifest.destination.close()
