"""Passes rows from the event loop of a batch to the thread that iterates over them."""

import asyncio
import sys
import threading
from collections import deque
from contextlib import suppress

from vipsrv.batch.rows import Row

MOST_WAITING = 2000
"""Rows that wait for the thread that iterates; with more the batch waits for it."""

WAKE_SECONDS = 0.05
"""The thread is woken at most so often while rows come: to switch threads for each takes more than a row."""

WAKE_ROWS = 200
"""Or once so many wait."""


class RowQueue:
    """A bounded queue from one event loop to one thread. An error comes out after all rows before it."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._most = most
        self._rows: deque[Row] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._room = asyncio.Event()
        self._waking: asyncio.TimerHandle | None = None

    async def put(self, row: Row) -> None:
        """Add a row, and wait while there are too many."""
        self._loop = asyncio.get_running_loop()
        self._rows.append(row)
        if len(self._rows) >= WAKE_ROWS:
            self._wake()
        elif self._waking is None:
            self._waking = self._loop.call_later(WAKE_SECONDS, self._wake)
        while len(self._rows) >= self._most:
            await self._room.wait()
            self._room.clear()

    def end(self, error: BaseException | None) -> None:
        """Add the end: no further row comes, because of an error if there is one."""
        if self._waking is not None:
            self._waking.cancel()
        with self._changed:
            self._ended = True
            self._error = error
            self._changed.notify_all()

    def get(self) -> Row | None:
        """Wait for the next row; ``None`` at the end. Raises the error that the rows ended with, once."""
        while True:
            try:
                row = self._rows.popleft()
            except IndexError:
                pass
            else:
                if self._loop is not None and len(self._rows) == self._most // 2:
                    with suppress(RuntimeError):  # the loop has ended, and nobody waits there
                        self._loop.call_soon_threadsafe(self._room.set)
                return row
            with self._changed:
                if not self._rows and self._ended:
                    error, self._error = self._error, None
                    if error is not None:
                        raise error
                    return None
                while not self._rows and not self._ended:
                    self._changed.wait()

    def drop(self) -> None:
        """Take no rows any more: those that wait and those that come are dropped, so that nothing waits."""
        self._most = sys.maxsize
        self._rows.clear()
        self._rows = deque(maxlen=0)
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._room.set)

    def _wake(self) -> None:
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        with self._changed:
            self._changed.notify_all()
