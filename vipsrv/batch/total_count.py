"""Counts the images of a source while a run does them, so that it can be said how much is left.

A run lists its source only a little ahead of the work. The count is a listing of its own, and is done long
before: for ten million keys of a bucket it takes ten thousand requests and no memory.
"""

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from vipsrv.batch.stores.interface import Source
from vipsrv.errors import VipsrvError

_STOP_SECONDS = 1.0
"""How long the end of the block waits for a listing that takes no notice."""


class TotalCount:
    """Counts in a thread within a ``with`` block; ``open_source`` opens the source once more."""

    def __init__(self, open_source: Callable[[], Source]) -> None:
        self.value: int | None = None
        """How many images the source has; ``None`` until that is known, and if it cannot be."""
        self._open_source = open_source
        self._wanted = True
        # Daemon: no listing keeps the process from ending.
        self._thread = threading.Thread(target=self._run, name="vipsrv-batch-count", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._wanted = False
        self._thread.join(_STOP_SECONDS)

    def wait(self) -> None:
        """Wait until the count has ended."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self.value = asyncio.run(self._count())
        except (VipsrvError, OSError, ValueError):
            self.value = None  # the run meets the same error, and tells it

    async def _count(self) -> int | None:
        source = self._open_source()
        count = 0
        try:
            async for _ in source.images():
                count += 1
                if not self._wanted:
                    return None
        finally:
            await source.close()
        return count
