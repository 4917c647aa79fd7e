"""The selection: which of the listed images are done in this run, in shards."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum

from vipsrv.batch.engines.interface import SHARD_SIZE, Shard
from vipsrv.batch.images import ListedImage
from vipsrv.batch.manifest.done_index import DoneIndex
from vipsrv.batch.manifest.layout import shard_name
from vipsrv.batch.manifest.temporary_database import key_digest
from vipsrv.batch.outputs import Outputs
from vipsrv.batch.problems import Problem
from vipsrv.batch.rows import OK, Row

_LOOKED_UP_TOGETHER = 1000
"""Images whose keys are looked up by one call in a thread, so that the event loop is not held up."""

LONGEST_WAIT = 5.0
"""Seconds for which a shard that an engine waits for is filled. After them it has fewer images: those that a
program writes to standard input from time to time, say, are not kept until there are a thousand.
"""


class Retry(Enum):
    """Which images that failed in an earlier run are done again, where they are not named by their codes."""

    NONE = "none"
    ALL = "all"


RetryFailed = Retry | Collection[str]
"""All, none, or those whose rows have one of these codes."""


@dataclass(slots=True)
class SelectionCounts:
    """What became of the listed images so far. Another thread may read it at any time."""

    listed: int = 0
    """Images that the source has listed and the filters have passed, those that are listed twice included."""
    selected: int = 0
    """Those of this run."""
    done_before: int = 0
    """Those that have results of an earlier run."""
    failed_before: int = 0
    """Those that failed in an earlier run and are not to be tried again."""
    duplicates: int = 0
    """Those that were listed before."""
    conflicts: int = 0
    """Those whose results would have the names of another image's."""
    ended: bool = False
    """Whether all are listed, or as many are selected as there may be."""

    @property
    def skipped(self) -> int:
        """Images that this run has nothing to do for."""
        return self.done_before + self.failed_before + self.duplicates


class Selection:
    """Takes the images that a source lists and gives shards of those that are to be done."""

    def __init__(
        self,
        index: DoneIndex,
        outputs: Outputs,
        run: str,
        *,
        retry_failed: RetryFailed = Retry.NONE,
        limit: int | None = None,
        shard_size: int = SHARD_SIZE,
        longest_wait: float = LONGEST_WAIT,
    ) -> None:
        self.counts = SelectionCounts()
        self._index = index
        self._outputs = outputs
        self._run = run
        self._retry_failed = retry_failed
        self._limit = limit
        self._shard_size = shard_size
        self._longest_wait = longest_wait

    async def shards(self, images: AsyncIterator[ListedImage]) -> AsyncGenerator[Shard, None]:
        """Yield shards until all images are listed, or the limit is reached."""
        number = 0
        selected: list[ListedImage] = []
        refused: list[Row] = []
        latest = time.monotonic() + self._longest_wait  # when whoever waits gets what there is
        together = min(_LOOKED_UP_TOGETHER, self._shard_size)
        async with aclosing(_together(images, together, lambda: latest)) as groups:
            async for listed in groups:
                await asyncio.to_thread(self._select, listed, selected, refused)
                late = time.monotonic() >= latest
                while (count := len(selected) + len(refused)) >= self._shard_size or (late and count):
                    number += 1
                    yield self._shard(number, selected, refused)
                    late, latest = False, time.monotonic() + self._longest_wait
                if late:
                    latest = time.monotonic() + self._longest_wait
                if self._at_limit:
                    break
        self.counts.ended = True  # before the last shard: its images take a while
        while selected or refused:
            number += 1
            yield self._shard(number, selected, refused)

    @property
    def _at_limit(self) -> bool:
        return self._limit is not None and self.counts.selected >= self._limit

    def _shard(self, number: int, selected: list[ListedImage], refused: list[Row]) -> Shard:
        """Take a shard off the start of what is selected."""
        rows = tuple(refused[: self._shard_size])
        del refused[: len(rows)]
        images = tuple(selected[: self._shard_size - len(rows)])
        del selected[: len(images)]
        return Shard(shard_name(self._run, number), images, rows)

    def _select(self, listed: Sequence[ListedImage], selected: list[ListedImage], refused: list[Row]) -> None:
        counts = self.counts
        for image in listed:
            if self._at_limit:
                return
            counts.listed += 1
            digest = key_digest(image.key)
            if not self._index.is_new_in_listing(digest):
                counts.duplicates += 1
                continue
            code = self._index.code(digest, image.version)
            if code == OK:
                counts.done_before += 1
            elif code is not None and not self._is_retried(code):
                counts.failed_before += 1
            elif (name := self._index.claim_names(image.key, digest)) is not None:
                counts.conflicts += 1
                refused.append(self._conflict(image, name))
            else:
                counts.selected += 1
                selected.append(image)

    def _is_retried(self, code: str) -> bool:
        if isinstance(self._retry_failed, Retry):
            return self._retry_failed is Retry.ALL
        return code in self._retry_failed

    def _conflict(self, image: ListedImage, name: str) -> Row:
        return Row(
            key=image.key,
            version=image.version,
            options=self._outputs.digest,
            bytes=image.size or 0,
            status=Problem.NAME_CONFLICT.status,
            code=Problem.NAME_CONFLICT.code,
            message=f"its result {name} would have the name of another image's: put {{source_ext}} or "
            "{folder} into the template of the names",
            attempts=0,
            ms=0.0,
            ended=time.time_ns() // 1_000_000,
            run=self._run,
        )


async def _together(
    images: AsyncIterator[ListedImage], most: int, latest: Callable[[], float]
) -> AsyncGenerator[list[ListedImage], None]:
    """Yield what is listed, ``most`` images at a time, and at the time ``latest()`` what there is so far."""
    group: list[ListedImage] = []

    async def fill() -> bool:
        async for image in images:
            group.append(image)
            if len(group) >= most:
                return True
        return False

    filling = asyncio.create_task(fill())
    try:
        while True:
            await asyncio.wait([filling], timeout=max(0.0, latest() - time.monotonic()))
            full = filling.done()  # or the last one
            there_are_more = filling.result() if full else True
            listed = group.copy()
            group.clear()
            yield listed
            if not there_are_more:
                return
            if full:
                filling = asyncio.create_task(fill())
    finally:
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
