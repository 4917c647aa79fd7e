"""Stores uploads and results between clients and workers: in reused buffers, or in unlinked files.

::

                      small, and memory left              otherwise
    bytes arrive ──► chunks of 64 to 512 KiB        ──► chunks that a thread writes to a file, together with
                                                         what it then splices from the socket
    worker gets  ◄── a copy in its shared memory         the file's descriptor, read-only

Memory and disk each have a budget. Bytes count when they arrive, not when they are announced: a slot takes
64 KiB, and then about as much again as has arrived. Nothing grows without bound, and no client keeps others
out by an announcement alone. The slots of one client count together (``budget.py`` has the rule of its
share). When memory is used up, slots move to files; when the disk's budget is used up, clients get ``Busy``.
The number of files has a budget of the same kind, because a file takes descriptors from its first byte on.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vipsrv.storage.budget import Share
from vipsrv.storage.chunk_pool import SMALL_CHUNK_SIZE, ChunkPool
from vipsrv.storage.file_slot import FileSlot
from vipsrv.storage.file_store import FileStore, MakeFile
from vipsrv.storage.memory_slot import MemorySlot
from vipsrv.worker_config import IN_MEMORY_SIZE


class Slot:
    """Room for ``size`` bytes that arrive one after another. Made by ``Spool.open``.

    The owner reads into ``room`` and reports how much it ``filled``, except while the slot is ``stalled``
    because the disk is behind. ``on_ready`` is called once: when the disk may have caught up, when a slot
    that has received everything may have become ``complete``, or when the disk has failed; ``room`` and
    ``complete`` then raise the error.

    A slot that ``grows`` takes at most ``size`` bytes; ``end`` makes what has arrived all of it.

    A small slot, and one that grows, begins in memory. It moves to a file if memory is used up or if it
    becomes large; the owner notices only that there is a ``descriptor`` then.
    """

    _content: MemorySlot | FileSlot

    __slots__ = (
        *("_closed", "_content", "_files", "_grows", "_make_file", "_pool"),
        *("on_ready", "share", "size"),
    )

    def __init__(
        self,
        pool: ChunkPool,
        files: FileStore,
        share: Share,
        size: int,
        *,
        grows: bool = False,
        content: MemorySlot | FileSlot | None = None,
        make_file: MakeFile | None = None,
    ) -> None:
        self.size = size
        self.share = share
        self.on_ready: Callable[[], None] | None = None
        self._pool = pool
        self._files = files
        self._closed = False
        self._make_file = make_file
        self._grows = grows
        if content is not None:
            self._content = content
            return
        self._content = memory = MemorySlot(pool, share.memory, size)
        if size > IN_MEMORY_SIZE and not grows:
            self._move_to_file(memory)

    @property
    def received(self) -> int:
        """Bytes that have arrived."""
        return self._content.received

    @property
    def complete(self) -> bool:
        """Whether all bytes have arrived and, in a file, are written. Raises ``RequestError``."""
        return self._content.complete

    @property
    def stalled(self) -> bool:
        """Whether the owner has to stop reading until ``on_ready`` is called."""
        return self._content.stalled

    @property
    def views(self) -> list[memoryview]:
        """The bytes that are in memory."""
        return self._content.views

    @property
    def descriptor(self) -> int | None:
        """The file's read-only descriptor, or ``None`` if the bytes are in memory."""
        return self._content.descriptor

    @property
    def closed(self) -> bool:
        """Whether everything has been given back."""
        return self._closed

    def room(self) -> memoryview:
        """Return the buffer for the next bytes. Raises ``RequestError`` if there is no room."""
        content = self._content
        if isinstance(content, FileSlot):
            return content.room()
        if self._grows and content.received >= IN_MEMORY_SIZE:
            return self._move_to_file(content).room()
        room = content.room()
        while room is None:
            lacks = self._pool.budget_left < SMALL_CHUNK_SIZE  # otherwise only this client has too much
            if not self._pool.make_room(None if lacks else self.share):
                break
            room = content.room()
        if room is None:
            self._pool.refusals += 1
            return self._move_to_file(content).room()
        # What a worker gets in memory is no larger, even if the last chunk has room for more.
        return room[: IN_MEMORY_SIZE - content.received] if self._grows else room

    def filled(self, size: int, source: int | None = None) -> None:
        """Count ``size`` bytes that were put into the last ``room``.

        ``source`` is the descriptor of the plain stream socket that the next bytes come from, or ``None`` if
        they must be copied through ``room``. A slot in a file may itself read from it: it is ``stalled``
        meanwhile, and when ``on_ready`` is called, ``take_spliced`` returns the number of bytes.
        """
        self._content.filled(size, source)

    def end(self) -> None:
        """Make what has arrived all of a slot that grows."""
        self._grows = False
        self.size = self._content.received
        self._content.end()

    def cut(self, size: int) -> bool:
        """Forget all but the first ``size`` bytes of those that have arrived, and return ``True``.

        While a thread writes to the file nothing is done; ``on_ready`` is called when it may be possible.
        """
        return self._content.cut(size)

    def take_spliced(self) -> int:
        """Return the number of bytes that were read from the source since the last call."""
        return self._content.take_spliced()

    def read(self, offset: int, size: int) -> bytes:
        """Read 1 to ``size`` bytes from ``offset`` of a slot in a file.

        Raises ``OSError`` if the file cannot be read or is shorter than the slot.
        """
        content = self._content
        assert isinstance(content, FileSlot)  # noqa: S101 - callers check `descriptor` first
        return content.read(offset, size)

    def close(self) -> None:
        """Release everything. A worker that still has the file open can read it until it closes it."""
        if not self._closed:
            self._closed = True
            self.on_ready = None
            self._content.close()

    def _move_to_file(self, memory: MemorySlot) -> FileSlot:
        """Keep the bytes in a file from now on. Raises ``Busy``, with nothing changed."""
        announced = memory.received if self._grows else self.size
        file = self._files.create(self.share, announced, self._make_file)
        content = FileSlot(self._pool, self._files, file, self.size, self._progressed, memory=memory)
        self._content = content
        return content

    def _progressed(self) -> None:
        ready, self.on_ready = self.on_ready, None
        if ready is not None:
            ready()


@dataclass(frozen=True, slots=True)
class SpoolUse:
    """What a spool holds: bytes in memory and on disk, of how many each, and the number of files.

    ``moves`` counts the slots that went to a file since the start because memory was used up.
    """

    memory: int
    memory_limit: int
    disk: int
    disk_limit: int
    files: int
    moves: int


class Spool:
    """Opens slots within two budgets, in bytes: ``memory``, and ``disk`` in the folder ``directory``.

    At most ``files`` slots are in files at the same time: each takes descriptors.
    """

    def __init__(self, *, directory: Path, memory: int, disk: int, files: int = sys.maxsize) -> None:
        self.chunks = self._pool = ChunkPool(memory)
        """The memory, for what opens slots of its own: see ``kept_slot.py``."""
        self.files = self._files = FileStore(directory, disk, files)
        """The files, likewise."""

    @property
    def memory_left(self) -> int:
        """Bytes of memory that slots may still take; negative if files took chunks beyond the budget."""
        return self._pool.budget_left

    @property
    def disk_left(self) -> int:
        """Bytes that files may still take; those of a closed slot count again once its file is freed."""
        return self._files.budget_left

    @property
    def use(self) -> SpoolUse:
        """What it holds at the moment."""
        pool, files = self._pool, self._files
        return SpoolUse(
            memory=pool.budget - pool.budget_left,
            memory_limit=pool.budget,
            disk=files.budget - files.budget_left,
            disk_limit=files.budget,
            files=files.open_files,
            moves=pool.refusals,
        )

    def open(self, size: int, share: Share | None = None) -> Slot:
        """Return a slot for ``size`` bytes, which count towards ``share``, or towards a share of their own.

        Raises ``Busy`` if the slot needs a file and the disk has no room.
        """
        return Slot(self._pool, self._files, share or Share(), size)

    def open_growing(self, most: int, share: Share | None = None) -> Slot:
        """Return a slot for an unknown number of bytes, at most ``most``; otherwise as ``open``."""
        return Slot(self._pool, self._files, share or Share(), most, grows=True)

    def resize(self, *, memory: int, disk: int, files: int) -> None:
        """Change the budgets. Slots keep what they hold, even if that is more than the new budgets."""
        self._pool.resize(memory)
        self._files.resize(disk, files)

    def close(self) -> None:
        """End the threads that write, and close their pipes; the slots must have been closed."""
        self._files.close()
