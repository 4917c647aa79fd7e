"""A run in its event loop: lists, selects, has the work done, and counts.

::

    source ──► filters ──► selection ──► shards ──► engine ──► rows ──► RowQueue
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from vipsrv.batch.engines.interface import SHARD_SIZE, Engine, Work
from vipsrv.batch.manifest.done_index import DoneIndex
from vipsrv.batch.manifest.failure_limit import FailureLimit
from vipsrv.batch.manifest.layout import case_counts
from vipsrv.batch.manifest.manifest import Manifest
from vipsrv.batch.manifest.parts import arrow
from vipsrv.batch.manifest.recorded_run import recorded_run
from vipsrv.batch.manifest.run_record import RunRecord
from vipsrv.batch.manifest.selection import Retry, RetryFailed, Selection, SelectionCounts
from vipsrv.batch.progress import Progress
from vipsrv.batch.row_queue import RowQueue
from vipsrv.batch.rows import Row
from vipsrv.errors import TooManyFailures

T = TypeVar("T")

MakeEngine = Callable[[Work], Engine]
"""Makes the engine of a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Which images a run does, and when it gives up.

    ``retry_failed`` are the images of earlier runs that are tried again, ``limit`` is the most images that
    are done, and ``max_error_rate`` the share of them that may fail, 0 to 1.
    """

    retry_failed: RetryFailed = Retry.NONE
    shard_size: int = SHARD_SIZE
    limit: int | None = None
    max_error_rate: float | None = None

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise ValueError(f"shard_size: must be from 1, not {self.shard_size}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit: must be from 1, not {self.limit}")
        if self.max_error_rate is not None and not 0 <= self.max_error_rate <= 1:
            raise ValueError(f"max_error_rate: must be from 0 to 1, not {self.max_error_rate}")


@asynccontextmanager
async def _closing(items: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close an iterator at the end of the block if it is a generator, so that it ends before what it uses."""
    try:
        yield items
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()


class RunLoop:
    """One run. ``main`` is its coroutine; ``stop`` and ``progress`` may be used from any thread."""

    def __init__(self, work: Work, make_engine: MakeEngine, choices: Choices) -> None:
        self.rows = RowQueue()
        self.work = work
        self._engine = make_engine(work)
        self.choices = choices
        self._lock = threading.Lock()  # guards the figures below
        self._started = time.time()
        self._counts = SelectionCounts()
        self._done = self._bytes_in = self._bytes_out = 0
        self._failed: Counter[str] = Counter()
        self._notes: tuple[str, ...] = ()

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        with self._lock:
            return Progress(
                run=self.work.run,
                started=self._started,
                listed=self._counts.listed,
                listing_done=self._counts.ended,
                skipped=self._counts.skipped,
                failed_before=self._counts.failed_before,
                done=self._done,
                failed=dict(self._failed),
                bytes_in=self._bytes_in,
                bytes_out=self._bytes_out,
                in_flight=self._engine.in_flight,
                notes=self._notes,
            )

    def stop(self) -> None:
        """Start no further image; the rows end after those in flight."""
        self._engine.stop()

    async def main(self) -> None:
        """Run to the end, and put all rows. Raises what ends the batch early."""
        self._started = time.time()
        await asyncio.to_thread(arrow)  # what is missing is told before any work is done
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.work.source.close)
            stack.push_async_callback(self.work.destination.close)
            manifest = Manifest(self.work.destination)
            stack.callback(manifest.lock(self.work.run).release)
            self._notes = (await manifest.recover()).notes
            index = DoneIndex(self.work.outputs, case_counts=case_counts(self.work.destination.url))
            stack.callback(index.close)
            await index.read(manifest)
            selection = self._select(index)
            record = RunRecord.begin(self.work.run, source=self.work.source.url, outputs=self.work.outputs)
            await stack.enter_async_context(
                recorded_run(manifest, record, selection.counts, self._rows_count)
            )
            images = await stack.enter_async_context(_closing(self.work.source.images()))
            shards = await stack.enter_async_context(_closing(selection.shards(images)))
            rows = await stack.enter_async_context(aclosing(self._engine.rows(shards)))
            too_many: TooManyFailures | None = None
            limit = FailureLimit(self.choices.max_error_rate)
            async for row in rows:
                self._count(row)
                await self.rows.put(row)
                if too_many is None:
                    try:
                        limit.count(ok=row.ok)
                    except TooManyFailures as error:
                        too_many = error
                        self._engine.stop()
            if too_many is not None:
                raise too_many

    def _select(self, index: DoneIndex) -> Selection:
        choices = self.choices
        selection = Selection(
            index,
            self.work.outputs,
            self.work.run,
            retry_failed=choices.retry_failed,
            limit=choices.limit,
            shard_size=choices.shard_size,
        )
        self._counts = selection.counts
        return selection

    def _rows_count(self) -> int:
        with self._lock:
            return self._done + self._failed.total()

    def _count(self, row: Row) -> None:
        with self._lock:
            if row.ok:
                self._done += 1
                self._bytes_in += row.bytes
                self._bytes_out += sum(one.bytes for one in row.outputs)
            else:
                self._failed[row.code] += 1
