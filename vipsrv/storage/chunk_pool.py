"""Buffers in memory that are reused, and the budget that bounds them.

A chunk never leaves the gateway process, so it may hold one client's bytes after another's.
"""

from dataclasses import dataclass

from vipsrv.storage.budget import Budget, Holding, MakeRoom, no_more_room

SMALL_CHUNK_SIZE = 64 * 1024
"""Bytes of the first chunk of a body, and of all chunks once the budget is used up."""

LARGE_CHUNK_SIZE = 512 * 1024
"""Bytes: the maximum of one read from a socket. Reads of 128 KiB cost 10 % more CPU for a photo."""

CHUNK_SIZES = (SMALL_CHUNK_SIZE, 128 * 1024, 256 * 1024, LARGE_CHUNK_SIZE)
"""Bytes. The chunks of a body double, so that it never holds much more than what has arrived of it."""

LEAST_READ = 1024
"""Bytes: a chunk with less free room counts as full. A header that was read together with the beginning of a
body leaves that little, and a read of its own would cost more."""

KEPT_FREE = 32 * 1024 * 1024
"""Bytes of free chunks of each size that are kept for reuse after a burst."""


@dataclass(slots=True)
class Chunk:
    """A buffer of which the first ``filled`` bytes are in use."""

    buffer: memoryview
    filled: int = 0

    @property
    def full(self) -> bool:
        """Whether another read into it is not worth its cost."""
        return len(self.buffer) - self.filled < LEAST_READ

    def holds(self, missing: int) -> bool:
        """Whether the next read of a body that lacks ``missing`` bytes should go into it."""
        return len(self.buffer) - self.filled >= min(missing, LEAST_READ)

    @property
    def view(self) -> memoryview:
        """The bytes in use."""
        return self.buffer[: self.filled]

    def room(self, limit: int) -> memoryview:
        """Return the free part of the buffer, at most ``limit`` bytes of it."""
        return self.buffer[self.filled : self.filled + limit]


def cut_chunks(chunks: list[Chunk], size: int) -> list[Chunk]:
    """Forget all but the first ``size`` bytes of ``chunks``; return those that are no longer among them."""
    kept = 0
    while kept < len(chunks) and size > 0:
        chunk = chunks[kept]
        chunk.filled = min(chunk.filled, size)
        size -= chunk.filled
        kept += 1
    dropped = chunks[kept:]
    del chunks[kept:]
    return dropped


class ChunkPool:
    """Hands out chunks and takes them back; at most ``budget`` bytes are out at a time."""

    def __init__(self, budget: int) -> None:
        self._budget = Budget(budget)
        self.refusals = 0
        """How often a slot had to go to a file because it could not have a chunk."""
        self.make_room: MakeRoom = no_more_room
        """Gives back chunks that can be spared."""
        self._free: dict[int, list[memoryview]] = {size: [] for size in CHUNK_SIZES}

    @property
    def budget_left(self) -> int:
        """Bytes that may still be handed out; negative if files were given chunks beyond the budget."""
        return self._budget.left

    @property
    def budget(self) -> int:
        """Bytes that may be out at a time."""
        return self._budget.size

    def resize(self, budget: int) -> None:
        """Change how many bytes may be out at a time."""
        self._budget.resize(budget)

    def has_room(self, holding: Holding, own: int) -> bool:
        """Whether the budget allows another chunk for a slot that has ``own`` bytes of ``holding``."""
        return self._budget.allows(holding, SMALL_CHUNK_SIZE, own=own)

    def take(self, holding: Holding, *, received: int, missing: int, own: int) -> Chunk:
        """Return a chunk for a body of which ``received`` bytes have arrived and ``missing`` have not.

        A small one is handed out even if the budget is used up, so that a slot in a file can always continue.
        """
        size = SMALL_CHUNK_SIZE
        for larger in CHUNK_SIZES[1:]:
            # Each size is preceded by one chunk of every smaller size: 64 KiB, then 128 KiB at 64 KiB, ...
            if received < larger - SMALL_CHUNK_SIZE or missing <= size:
                break
            if not self._budget.allows(holding, larger, own=own):
                break
            size = larger
        self._budget.take(holding, size)
        free = self._free[size]
        return Chunk(free.pop() if free else memoryview(bytearray(size)))

    def give_back(self, holding: Holding, chunks: list[Chunk]) -> None:
        """Take chunks back for reuse; the caller must not touch their buffers again."""
        for chunk in chunks:
            size = len(chunk.buffer)
            self._budget.give_back(holding, size)
            free = self._free[size]
            if len(free) < KEPT_FREE // size:
                free.append(chunk.buffer)
