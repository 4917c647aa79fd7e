"""Buffers in memory that are reused, and the budget that bounds them.

A chunk never leaves the gateway process, so it may hold one client's bytes after another's.
"""

from dataclasses import dataclass

LARGE_CHUNK_SIZE = 512 * 1024
"""Bytes: the maximum of one read from a socket. Reads of 128 KiB cost 10 % more CPU for a photo."""

SMALL_CHUNK_SIZE = 64 * 1024
"""Bytes: for small images, for the last bytes of large ones, and for files once the budget is used up."""

KEPT_FREE = 32 * 1024 * 1024
"""Bytes of free chunks of each size that are kept for reuse after a burst."""


@dataclass(slots=True)
class Chunk:
    """A buffer of which the first ``filled`` bytes are in use."""

    buffer: memoryview
    filled: int = 0

    @property
    def full(self) -> bool:
        """Whether no more bytes fit."""
        return self.filled == len(self.buffer)

    @property
    def view(self) -> memoryview:
        """The bytes in use."""
        return self.buffer[: self.filled]

    def room(self, limit: int) -> memoryview:
        """Return the free part of the buffer, at most ``limit`` bytes of it."""
        return self.buffer[self.filled : self.filled + limit]


class ChunkPool:
    """Hands out chunks of two sizes and takes them back; at most ``budget`` bytes are out at a time."""

    def __init__(self, budget: int) -> None:
        self._budget_left = budget
        self._free: dict[int, list[memoryview]] = {SMALL_CHUNK_SIZE: [], LARGE_CHUNK_SIZE: []}

    @property
    def budget_left(self) -> int:
        """Bytes that may still be handed out; negative if files were given chunks beyond the budget."""
        return self._budget_left

    def take(self, missing: int) -> Chunk:
        """Return a chunk for the next bytes of a body that lacks ``missing`` bytes.

        One is handed out even if the budget is used up, so that a slot in a file can always continue.
        """
        large = missing > LARGE_CHUNK_SIZE // 2 and self._budget_left >= LARGE_CHUNK_SIZE
        size = LARGE_CHUNK_SIZE if large else SMALL_CHUNK_SIZE
        self._budget_left -= size
        free = self._free[size]
        return Chunk(free.pop() if free else memoryview(bytearray(size)))

    def give_back(self, chunks: list[Chunk]) -> None:
        """Take chunks back for reuse; the caller must not touch their buffers again."""
        for chunk in chunks:
            size = len(chunk.buffer)
            self._budget_left += size
            free = self._free[size]
            if len(free) < KEPT_FREE // size:
                free.append(chunk.buffer)
