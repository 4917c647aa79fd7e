"""The bytes of a slot in a file: chunks that a thread writes, and bytes that it splices from the socket.

::

    IDLE ── a chunk is full ──────────────────────────► WRITING ─── done ──► IDLE
    IDLE ── a chunk is full, the socket is known ─────► SPLICING ── done ──► IDLE
    WRITING, SPLICING ── the disk fails ──► FAILED
    WRITING, SPLICING ── close() ──► CLOSING ── done ──► CLOSED
    IDLE, FAILED ── close() ──► CLOSED
    IDLE ── detach() ──► CLOSED, and the file is the caller's
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto

from vipsrv.errors import Busy
from vipsrv.storage import splice
from vipsrv.storage.chunk_pool import LARGE_CHUNK_SIZE, SMALL_CHUNK_SIZE, Chunk, ChunkPool, cut_chunks
from vipsrv.storage.file_store import FileStore, SpoolFile, no_room
from vipsrv.storage.memory_slot import MemorySlot

WRITE_BEHIND = 8 * LARGE_CHUNK_SIZE
"""Bytes of full chunks that a slot may hold before its owner has to wait for the disk."""

OVERDRAFT = 2 * SMALL_CHUNK_SIZE
"""The same when memory is used up: enough to continue slowly."""

LEAST_RESERVED_AHEAD = SMALL_CHUNK_SIZE
"""Bytes of the disk's budget that a slot reserves when nothing has arrived of it. Later it reserves as many
more as have arrived, which is at least the size of the next chunk."""

MOST_RESERVED_AHEAD = splice.MOST_AT_ONCE
"""The most bytes that it reserves before they arrive."""

_log = logging.getLogger(__name__)


class FileState(Enum):
    """What a thread does with the file; see the diagram above."""

    IDLE = auto()
    WRITING = auto()
    SPLICING = auto()
    FAILED = auto()
    CLOSING = auto()
    CLOSED = auto()


TRANSITIONS: dict[FileState, frozenset[FileState]] = {
    FileState.IDLE: frozenset({FileState.WRITING, FileState.SPLICING, FileState.CLOSED}),
    FileState.WRITING: frozenset({FileState.IDLE, FileState.FAILED, FileState.CLOSING}),
    FileState.SPLICING: frozenset({FileState.IDLE, FileState.FAILED, FileState.CLOSING}),
    FileState.FAILED: frozenset({FileState.CLOSED}),
    FileState.CLOSING: frozenset({FileState.CLOSED}),
    FileState.CLOSED: frozenset(),
}
"""The states that may follow each state."""


class FileSlot:
    """Keeps up to ``size`` bytes in ``file``; see ``Slot`` for what each member means to the owner.

    Continues with what is in the file, and with what has arrived in ``memory``. ``on_progress`` is called
    whenever the disk has caught up or failed.
    """

    __slots__ = (
        "_can_splice",
        "_chunks",
        "_ended",
        "_file",
        "_files",
        "_pool",
        "_share",
        "_size",
        "_spliced_size",
        "_state",
        "_writing",
        "on_progress",
        "received",
    )

    def __init__(
        self,
        pool: ChunkPool,
        files: FileStore,
        file: SpoolFile,
        size: int,
        on_progress: Callable[[], None],
        *,
        memory: MemorySlot | None = None,
    ) -> None:
        self._file = file
        self._pool = pool
        self._files = files
        self._share = file.share
        self._size = size
        self.on_progress = on_progress
        self._state = FileState.IDLE
        # Being filled, or full and not yet passed to a thread.
        self._chunks = [] if memory is None else memory.hand_over()
        self._writing: list[Chunk] = []  # being written by a thread
        self._spliced_size = 0
        # The last bytes came from a socket that a thread can read, once the chunks before have been written.
        self._can_splice = False
        self._ended = False  # no more bytes are expected than arrive by the end of the running splice
        self.received = file.written if memory is None else memory.received
        self._start_writing()

    @property
    def complete(self) -> bool:
        """Whether all bytes have arrived and are written. Raises ``Busy`` if the disk has failed."""
        self._check_disk()
        return self._state is FileState.IDLE and self.received == self._size

    @property
    def views(self) -> list[memoryview]:
        """The bytes that have not been passed to a thread yet."""
        return [chunk.view for chunk in self._chunks]

    @property
    def descriptor(self) -> int:
        """The file's read-only descriptor."""
        return self._file.read_fd

    @property
    def splicing(self) -> bool:
        """Whether a thread reads from the socket, so that ``received`` is about to change."""
        return self._state is FileState.SPLICING

    @property
    def stalled(self) -> bool:
        """Whether the disk is behind, or a thread reads from the socket or is about to."""
        if self._state is FileState.SPLICING:
            return True
        if self._state is FileState.FAILED:
            return False
        waiting = sum(len(chunk.buffer) for chunk in (*self._chunks, *self._writing) if chunk.full)
        if self._can_splice:
            return waiting > 0
        roomy = self._pool.has_room(self._share.memory, self._held)
        return waiting >= (WRITE_BEHIND if roomy else OVERDRAFT)

    def room(self) -> memoryview:
        """Return the buffer for the next bytes. Raises ``Busy``."""
        self._check_disk()
        missing = self._size - self.received
        if not self._chunks or not self._chunks[-1].holds(missing):
            self._reserve()
            self._chunks.append(
                self._pool.take(self._share.memory, received=self.received, missing=missing, own=self._held)
            )
        return self._chunks[-1].room(missing)

    def filled(self, size: int, source: int | None) -> None:
        """Count ``size`` bytes that were put into the last ``room``; more may be read from ``source``."""
        self._chunks[-1].filled += size
        self.received += size
        self._can_splice = source is not None and splice.available()
        if self._state is not FileState.IDLE:
            return
        if source is None or not self._can_splice or not self._chunks[-1].full:
            self._start_writing()
        elif not self._start_splicing(source):
            self._can_splice = False
            self._start_writing()

    def end(self) -> None:
        """Expect no more bytes than have arrived, and those that a thread is reading from the socket."""
        self._ended = True
        self._size = self.received
        if self._state is FileState.IDLE:
            self._start_writing()

    def reopen(self, size: int) -> None:
        """Expect ``size`` bytes altogether, although it was told to ``end``; no thread may be splicing."""
        self._ended = False
        self._size = size
        self._spliced_size = 0
        self._can_splice = False

    def cut(self, size: int) -> bool:
        """Forget all but the first ``size`` bytes, unless a thread writes; then return ``False``."""
        if self._state in (FileState.WRITING, FileState.SPLICING):
            return False
        self.received = size
        written = self._file.written
        self._pool.give_back(self._share.memory, cut_chunks(self._chunks, max(0, size - written)))
        if size < written and self._state is FileState.IDLE:
            self._enter(FileState.WRITING)
            self._files.cut(self._file, size).add_done_callback(self._written)
        return True

    def detach(self) -> SpoolFile:
        """Return the file of a slot that is ``complete``; the slot is closed and the file is not."""
        self._enter(FileState.CLOSED)
        return self._file

    def take_spliced(self) -> int:
        """Return the number of bytes that were read from the source since the last call."""
        spliced, self._spliced_size = self._spliced_size, 0
        return spliced

    def read(self, offset: int, size: int) -> bytes:
        """Read 1 to ``size`` bytes from ``offset``. Raises ``OSError``, also if the file ends there."""
        return self._file.read(offset, size)

    def close(self) -> None:
        """Release everything; the file is released when the running write has ended."""
        self._pool.give_back(self._share.memory, self._chunks)
        self._chunks = []
        if self._state in (FileState.WRITING, FileState.SPLICING):
            self._enter(FileState.CLOSING)
        else:
            self._enter(FileState.CLOSED)
            self._files.remove(self._file)

    def _enter(self, state: FileState) -> None:
        assert state in TRANSITIONS[self._state], (self._state, state)  # noqa: S101 - would be a bug in here
        self._state = state

    @property
    def _held(self) -> int:
        """Bytes of the memory's budget that this slot has."""
        return sum(len(chunk.buffer) for chunk in (*self._chunks, *self._writing))

    def _check_disk(self) -> None:
        if self._state is FileState.FAILED:
            raise no_room()

    def _reserve(self) -> None:
        """Reserve room on the disk for the next bytes. Raises ``Busy``."""
        ahead = min(LEAST_RESERVED_AHEAD + self.received, MOST_RESERVED_AHEAD)
        needed = min(self._size, self.received + ahead)
        if needed > self._file.reserved:
            self._files.reserve(self._file, needed)

    def _start_writing(self) -> None:
        """Give all full chunks to a thread, and the last one if no more bytes will come."""
        full = [chunk for chunk in self._chunks if chunk.full or self.received == self._size]
        if not full:
            return
        self._chunks = self._chunks[len(full) :]
        self._writing = full
        self._enter(FileState.WRITING)
        write = self._files.write(self._file, [chunk.view for chunk in full])
        write.add_done_callback(self._written)

    def _start_splicing(self, source: int) -> bool:
        """Let a thread write all chunks and read on from the socket; return whether that has started."""
        views = [chunk.view for chunk in self._chunks]
        # If the disk has no room, the next `room` reports it; without a descriptor left, bytes are copied.
        with suppress(Busy, OSError):
            self._reserve()
            if self.received < self._size:
                most = self._file.reserved - self.received
                splicing = self._files.write_and_splice(self._file, views, source, most)
                self._writing, self._chunks = self._chunks, []
                self._enter(FileState.SPLICING)
                splicing.add_done_callback(self._spliced)
                return True
        return False

    def _written(self, write: "asyncio.Future[None]") -> None:
        self._end_write(None if write.cancelled() else write.exception())

    def _spliced(self, splicing: "asyncio.Future[splice.Moved]") -> None:
        error = None if splicing.cancelled() else splicing.exception()
        if not splicing.cancelled() and error is None:
            moved = splicing.result()
            self._spliced_size += moved.size
            self.received += moved.size
            if self._ended:
                self._size = self.received
            self._file.written += moved.size
            error = moved.error
        self._end_write(error)

    def _end_write(self, error: BaseException | None) -> None:
        self._pool.give_back(self._share.memory, self._writing)
        self._writing = []
        if self._state is FileState.CLOSING:
            self._enter(FileState.CLOSED)
            self._files.remove(self._file)
            return
        if error is not None:
            _log.error("the spool folder cannot be written: %s", error)
            self._files.make_room(None)  # the disk may be full before its budget is
            self._enter(FileState.FAILED)
        else:
            self._enter(FileState.IDLE)
            self._start_writing()
        self.on_progress()
