"""A list of keys on standard input: its entries are passed on as they come, however slowly."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress

from vipsrv.batch.stores.blocking_calls import CHUNK
from vipsrv.batch.stores.key_entries import BadEntry, KeyEntry, ListFormat, line_entries
from vipsrv.errors import StorageFailed

_Chunk = list[KeyEntry | BadEntry]


async def standard_input_entries(format_: ListFormat) -> AsyncIterator[KeyEntry | BadEntry]:
    """Yield the entries that come from standard input. Raises ``StorageFailed`` if it cannot be read."""
    reader = _Reader(sys.stdin.buffer.fileno(), format_)
    reader.start()
    while chunk := await reader.next():
        for entry in chunk:
            yield entry


class _Reader:
    """Reads a descriptor in a daemon thread.

    Nobody can end a read of a terminal, and the process must be able to exit.
    """

    def __init__(self, descriptor: int, format_: ListFormat) -> None:
        self._descriptor = descriptor
        self._format = format_
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[_Chunk | OSError] = asyncio.Queue()
        self._room = threading.Semaphore(1)  # for a chunk in the queue
        self._chunk: _Chunk = []

    def start(self) -> None:
        threading.Thread(target=self._read, name="vipsrv-stdin", daemon=True).start()

    async def next(self) -> _Chunk:
        """Return what has come, and an empty list at the end. Raises ``StorageFailed``."""
        chunk = await self._chunks.get()
        self._room.release()
        if isinstance(chunk, OSError):
            raise StorageFailed("standard input", str(chunk)) from chunk
        return chunk

    def _read(self) -> None:
        end: _Chunk | OSError = []
        try:
            for entry in line_entries(_lines(self._descriptor, self._give_chunk), self._format):
                self._chunk.append(entry)
                if len(self._chunk) >= CHUNK:
                    self._give_chunk()
        except OSError as error:
            end = error
        self._give_chunk()
        self._give(end)

    def _give_chunk(self) -> None:
        if self._chunk:
            self._give(self._chunk)
            self._chunk = []

    def _give(self, chunk: _Chunk | OSError) -> None:
        self._room.acquire()
        with suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)


def _lines(descriptor: int, before_read: Callable[[], None]) -> Iterator[bytes]:
    """Yield lines as they come; the last one may have no end. A read may wait for long."""
    rest = b""
    while piece := os.read(descriptor, 2**16):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
        before_read()
    if rest:
        yield rest
