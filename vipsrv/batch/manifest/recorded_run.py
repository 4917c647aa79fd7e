"""Keeps the record of a run: written when it starts, and again when it has ended."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from vipsrv.batch.manifest.manifest import Manifest
from vipsrv.batch.manifest.run_record import RunEnd, RunRecord
from vipsrv.batch.manifest.selection import SelectionCounts
from vipsrv.errors import BatchError


@asynccontextmanager
async def recorded_run(
    manifest: Manifest, record: RunRecord, counts: SelectionCounts, rows: Callable[[], int]
) -> AsyncIterator[None]:
    """Record a run that takes place within the block; ``rows`` says how many images have a row so far.

    Raises ``StorageFailed`` at once if the destination cannot be written to.
    """
    await manifest.write_run(record)
    try:
        yield
    except Exception as error:
        await _write_end(manifest, record, counts, RunEnd.FAILED, str(error))
        raise
    complete = counts.ended and rows() >= counts.selected + counts.conflicts
    await _write_end(manifest, record, counts, RunEnd.COMPLETE if complete else RunEnd.STOPPED)


async def _write_end(
    manifest: Manifest, record: RunRecord, counts: SelectionCounts, end: RunEnd, reason: str = ""
) -> None:
    ended = record.with_end(
        end, reason=reason, listed=counts.listed, listing_done=counts.ended, skipped=counts.skipped
    )
    # Rows are what counts. A destination that has failed is what the run tells, not that this failed, too.
    with suppress(BatchError, OSError):
        await manifest.write_run(ended)
