"""The bytes on their way between clients and workers: in reused private buffers, or in unlinked files.

::

                      small, and memory left              else
    bytes arrive ──► chunks of 64 or 512 KiB        ──► chunks, a thread writes them to a file, and
                                                         splices what else the socket has
    worker gets  ◄── a copy, in memory of its own        the file's descriptor, read-only

A chunk never leaves the gateway process, and a file is fresh for each slot: what one worker was lent is
never used for another request. Both kinds count against a budget of their own as bytes arrive, not as they
are announced, so nothing grows without bound and nobody is kept out by mere words; memory that is used up
turns into files, files that are used up into ``Busy``.
"""

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from vipsrv.errors import Busy, RequestError
from vipsrv.storage import splice
from vipsrv.worker_config import IN_MEMORY_SIZE

LARGE_CHUNK_SIZE = 512 * 1024
"""Bytes: what one read of a socket may bring. Reads of 128 KiB cost a photo a tenth more."""

SMALL_CHUNK_SIZE = 64 * 1024
"""Bytes: for what is small, for ends, and for slots in files when memory is used up."""

_WRITE_BEHIND = 8 * LARGE_CHUNK_SIZE
"""Bytes of chunks that a slot in a file may hold before it asks its owner to wait for the disk."""

OVERDRAFT = 2 * SMALL_CHUNK_SIZE
"""Bytes of chunks that it may hold when memory is used up: enough to go on, and slowly."""

RESERVED_AHEAD = splice.MOST_AT_ONCE
"""Bytes of the disk's budget that a file takes before they arrive."""

KEPT_FREE = 32 * 1024 * 1024
"""Bytes of chunks of each size that are kept for reuse when a burst is over."""

_FULL_RETRY_MS = 1000

_log = logging.getLogger(__name__)


class Spool:
    """Gives out slots within two budgets, in bytes: ``memory`` and, in ``directory``, ``disk``."""

    def __init__(self, *, directory: Path, memory: int, disk: int) -> None:
        self.directory = directory
        self._memory_left = memory
        self._disk_left = disk
        self._free: dict[int, list[memoryview]] = {SMALL_CHUNK_SIZE: [], LARGE_CHUNK_SIZE: []}
        self._writers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="spool")
        self._closers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool-close")
        self._closed = False

    @property
    def disk_left(self) -> int:
        """Bytes that files may still take; those of a closed slot are back when its file is gone."""
        return self._disk_left

    def open(self, size: int) -> "Slot":
        """A slot for ``size`` bytes. Raises ``Busy`` if that needs a file and there is no room for it."""
        slot = Slot(self, size)
        if size > IN_MEMORY_SIZE:
            slot.move_to_file()
        return slot

    def close(self) -> None:
        """End the writing threads; the slots must have been closed."""
        self._closed = True
        self._writers.shutdown(wait=True, cancel_futures=True)
        self._closers.shutdown(wait=True)

    @property
    def has_memory(self) -> bool:
        """Whether there is memory left."""
        return self._memory_left > 0

    def take_chunk(self, missing: int) -> memoryview:
        """A chunk for the next of ``missing`` bytes.

        One is given even when no memory is left, so that a slot in a file can always go on.
        """
        large = missing > LARGE_CHUNK_SIZE // 2 and self._memory_left >= LARGE_CHUNK_SIZE
        size = LARGE_CHUNK_SIZE if large else SMALL_CHUNK_SIZE
        self._memory_left -= size
        free = self._free[size]
        return free.pop() if free else memoryview(bytearray(size))

    def return_chunk(self, chunk: memoryview) -> None:
        """Give a chunk back for reuse."""
        size = len(chunk)
        self._memory_left += size
        free = self._free[size]
        if len(free) < KEPT_FREE // size:
            free.append(chunk)

    def create_file(self, size: int) -> "_File":
        """A fresh unlinked file for ``size`` bytes, none of them reserved. Raises ``Busy``."""
        self._check_disk(size)
        try:
            file = _create_unlinked(self.directory)
        except OSError as error:
            _log.error("no file can be made in the spool directory: %s", error)
            raise Busy(
                "the server's spool has no room: try again later", retry_after_ms=_FULL_RETRY_MS
            ) from None
        return file

    def reserve(self, file: "_File", size: int) -> None:
        """Have the file take ``size`` bytes of the budget, no fewer than before. Raises ``Busy``."""
        self._check_disk(size - file.reserved)
        self._disk_left -= size - file.reserved
        file.reserved = size

    def _check_disk(self, size: int) -> None:
        if size > self._disk_left:
            raise Busy(
                f"the spool has {self._disk_left} bytes left, and this takes {size}: try again later",
                retry_after_ms=_FULL_RETRY_MS,
            )

    def remove_file(self, file: "_File") -> None:
        """Close a file's descriptors, which frees it.

        In a thread, for the kernel takes 0.1 s to free 1 GB, and seconds while the disk is behind.
        """
        if self._closed:
            file.close()
            return
        closing = asyncio.get_running_loop().run_in_executor(self._closers, file.close)
        closing.add_done_callback(partial(self._removed, file))

    def _removed(self, file: "_File", closing: "asyncio.Future[None]") -> None:
        self._disk_left += file.reserved
        error = closing.exception()
        if error is not None:
            _log.error("a file of the spool could not be closed: %s", error)

    def write(self, file: "_File", views: list[memoryview]) -> "asyncio.Future[None]":
        """Append to a file in a thread, so that a slow disk holds up nobody else."""
        offset = file.written
        file.written += sum(map(len, views))
        return asyncio.get_running_loop().run_in_executor(
            self._writers, _write_all, file.write_fd, views, offset
        )

    def draw(
        self, file: "_File", views: list[memoryview], source: int, most: int
    ) -> "asyncio.Future[splice.Moved]":
        """Append to a file in a thread, and behind it up to ``most`` bytes from the socket ``source``.

        Raises ``OSError``, with nothing done, where no descriptor is left.
        """
        own = os.dup(source)  # so that it stays what it is, whatever happens to the connection
        offset = file.written
        file.written += sum(map(len, views))
        draw = asyncio.get_running_loop().run_in_executor(
            self._writers, _write_and_move, file.write_fd, views, offset, own, most
        )
        draw.add_done_callback(lambda _: os.close(own))
        return draw


@dataclass(slots=True)
class _File:
    write_fd: int
    read_fd: int
    reserved: int = 0
    written: int = 0

    def close(self) -> None:
        """Close both descriptors. Raises ``OSError``."""
        try:
            os.close(self.write_fd)
        finally:
            os.close(self.read_fd)


@dataclass(slots=True)
class _Part:
    """A chunk and how much of it is filled."""

    chunk: memoryview
    filled: int = 0

    @property
    def full(self) -> bool:
        return self.filled == len(self.chunk)

    @property
    def view(self) -> memoryview:
        return self.chunk[: self.filled]


@dataclass(slots=True, eq=False)
class Slot:
    """Room for ``size`` bytes that arrive one after another.

    The owner asks for ``room``, reads into it and tells how much it ``filled``, unless the slot is
    ``stalled`` because the disk is behind. ``on_ready`` is called once when it may have caught up, when
    a slot that has received all may have become ``complete``, and when the disk has failed; ``room`` and
    ``complete`` then raise that.

    A slot in a file that was told the ``source`` of its bytes, a socket, may go on reading that by itself. It
    is ``stalled`` meanwhile, and when ``on_ready`` is called, ``take_drawn`` tells how many bytes that were.
    """

    spool: Spool
    size: int
    received: int = 0
    on_ready: Callable[[], None] | None = None
    _parts: list[_Part] = field(default_factory=list)
    _writing: list[_Part] = field(default_factory=list)
    _file: _File | None = None
    _drawing: bool = False
    _drawn: int = 0
    _error: RequestError | None = None
    _closed: bool = False

    @property
    def complete(self) -> bool:
        """Whether all has arrived and, in a file, is written. Raises what the disk failed with."""
        if self._error is not None:
            raise self._error
        if self._file is not None and (self._parts or self._writing):
            return False
        return self.received == self.size

    @property
    def views(self) -> list[memoryview]:
        """What is held in memory."""
        return [part.view for part in self._parts]

    @property
    def descriptor(self) -> int | None:
        """The file's read-only descriptor, or ``None`` if the bytes are in memory."""
        return None if self._file is None else self._file.read_fd

    @property
    def stalled(self) -> bool:
        """Whether the disk is behind: the owner stops reading until ``on_ready``."""
        if self._file is None or self._error is not None:
            return False
        if self._drawing:
            return True
        held = sum(len(part.chunk) for part in (*self._parts, *self._writing) if part.full)
        return held >= (_WRITE_BEHIND if self.spool.has_memory else OVERDRAFT)

    def room(self) -> memoryview:
        """The place for the next bytes. Raises ``RequestError`` if there is none."""
        if self._error is not None:
            raise self._error
        missing = self.size - self.received
        if self._parts and not self._parts[-1].full:
            part = self._parts[-1]
            return part.chunk[part.filled : part.filled + missing]
        if self._file is None and not self.spool.has_memory:
            self.move_to_file()
        if self._file is not None:
            self._reserve(self._file)
        part = _Part(self.spool.take_chunk(missing))
        self._parts.append(part)
        return part.chunk[:missing]

    def filled(self, size: int, source: int | None = None) -> None:
        """``size`` bytes were put into the last ``room``; the next ones may be read from ``source``."""
        self._parts[-1].filled += size
        self.received += size
        if self._file is not None and not self._writing:
            if source is not None and splice.available() and self._parts[-1].full:
                self._draw(self._file, source)
            else:
                self._write()

    def take_drawn(self) -> int:
        """How many bytes were read from the source since this was asked last."""
        drawn, self._drawn = self._drawn, 0
        return drawn

    def move_to_file(self) -> None:
        """From now on the bytes live in a file. Raises ``Busy`` if there is no room for it."""
        self._file = self.spool.create_file(self.size)
        self._write()

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset`` of a slot in a file."""
        assert self._file is not None  # noqa: S101 - callers ask for `descriptor` first
        return os.pread(self._file.read_fd, size, offset)

    def close(self) -> None:
        """Give everything back. What a worker still holds of a file stays its own."""
        if self._closed:
            return
        self._closed = True
        self.on_ready = None
        self._return(self._parts)
        self._parts = []
        if self._file is not None and not self._writing:
            self.spool.remove_file(self._file)

    def _write(self) -> None:
        full = [part for part in self._parts if part.full or self.received == self.size]
        if not full or self._file is None:
            return
        self._parts = self._parts[len(full) :]
        self._writing = full
        self.spool.write(self._file, [part.view for part in full]).add_done_callback(self._written)

    def _written(self, write: "asyncio.Future[None]") -> None:
        self._end_write(None if write.cancelled() else write.exception())

    def _end_write(self, error: BaseException | None) -> None:
        self._return(self._writing)
        self._writing = []
        if self._closed and self._file is not None:
            self.spool.remove_file(self._file)
            return
        if error is not None:
            _log.error("the spool directory cannot be written: %s", error)
            self._error = Busy(
                "the server's spool has no room: try again later", retry_after_ms=_FULL_RETRY_MS
            )
        else:
            self._write()
        ready, self.on_ready = self.on_ready, None
        if ready is not None:
            ready()

    def _reserve(self, file: _File) -> None:
        """Have room for what comes next. Raises ``Busy``."""
        needed = min(self.size, self.received + RESERVED_AHEAD)
        if needed > file.reserved:
            self.spool.reserve(file, needed)

    def _draw(self, file: _File, source: int) -> None:
        views = [part.view for part in self._parts]
        draw = None
        # Where the disk has no room, or no descriptor is left: the next `room` will tell, or do.
        with suppress(Busy, OSError):
            self._reserve(file)
            if self.received < self.size:
                draw = self.spool.draw(file, views, source, file.reserved - self.received)
        if draw is None:
            self._write()
            return
        self._writing, self._parts = self._parts, []
        self._drawing = True
        draw.add_done_callback(self._was_drawn)

    def _was_drawn(self, draw: "asyncio.Future[splice.Moved]") -> None:
        self._drawing = False
        error = None if draw.cancelled() else draw.exception()
        if self._file is not None and not draw.cancelled() and error is None:
            moved = draw.result()
            self._drawn += moved.size
            self.received += moved.size
            self._file.written += moved.size
            error = moved.error
        self._end_write(error)

    def _return(self, parts: list[_Part]) -> None:
        for part in parts:
            self.spool.return_chunk(part.chunk)


def _create_unlinked(folder: Path) -> _File:
    """Raises ``OSError``."""
    write_fd, path = tempfile.mkstemp(prefix="vipsrv-", dir=folder)
    with ExitStack() as undo:
        undo.callback(os.close, write_fd)
        try:
            read_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            undo.callback(os.close, read_fd)
        finally:
            Path(path).unlink()
        undo.pop_all()
    return _File(write_fd=write_fd, read_fd=read_fd)


def _write_and_move(fd: int, views: list[memoryview], offset: int, source: int, most: int) -> splice.Moved:
    end = offset + sum(map(len, views))
    _write_all(fd, views, offset)
    return splice.move(source, fd, end, most)


def _write_all(fd: int, views: list[memoryview], offset: int) -> None:
    while views:
        written = os.pwritev(fd, views, offset)
        offset += written
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]
