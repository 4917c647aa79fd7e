"""The bytes of a slot in memory: a list of chunks."""

from vipsrv.storage.budget import Holding
from vipsrv.storage.chunk_pool import Chunk, ChunkPool, cut_chunks


class MemorySlot:
    """Keeps up to ``size`` bytes in chunks; see ``Slot`` for what each member means to the owner."""

    __slots__ = ("_chunks", "_held", "_holding", "_pool", "_size", "received")

    stalled = False
    """A slot in memory never makes its owner wait."""

    descriptor = None
    """There is no file."""

    def __init__(self, pool: ChunkPool, holding: Holding, size: int) -> None:
        self._pool = pool
        self._holding = holding
        self._held = 0  # bytes of the chunks
        self._size = size
        self._chunks: list[Chunk] = []
        self.received = 0

    @property
    def complete(self) -> bool:
        """Whether all bytes have arrived."""
        return self.received == self._size

    @property
    def held(self) -> int:
        """Bytes of the memory's budget that this slot has."""
        return self._held

    @property
    def views(self) -> list[memoryview]:
        """The bytes, in order."""
        return [chunk.view for chunk in self._chunks]

    def room(self) -> memoryview | None:
        """Return the buffer for the next bytes, or ``None`` if the budget does not allow another chunk."""
        missing = self._size - self.received
        if not self._chunks or not self._chunks[-1].holds(missing):
            own = self._held
            if not self._pool.has_room(self._holding, own):
                return None
            chunk = self._pool.take(self._holding, received=self.received, missing=missing, own=own)
            self._held = own + len(chunk.buffer)
            self._chunks.append(chunk)
        return self._chunks[-1].room(missing)

    def filled(self, size: int, source: int | None) -> None:  # noqa: ARG002 - only a file reads from a source
        """Count ``size`` bytes that were put into the last ``room``."""
        self._chunks[-1].filled += size
        self.received += size

    def end(self) -> None:
        """Expect no more bytes than have arrived."""
        self._size = self.received

    def cut(self, size: int) -> bool:
        """Forget all but the first ``size`` bytes; that is always possible at once."""
        self.received = size
        dropped = cut_chunks(self._chunks, size)
        self._held -= sum(len(chunk.buffer) for chunk in dropped)
        self._pool.give_back(self._holding, dropped)
        return True

    def hand_over(self) -> list[Chunk]:
        """Give up the chunks, for a slot in a file that continues with them."""
        chunks, self._chunks, self._held = self._chunks, [], 0
        return chunks

    def take_spliced(self) -> int:
        """Return 0: a slot in memory never reads from the socket itself."""
        return 0

    def close(self) -> None:
        """Give the chunks back to the pool."""
        self._pool.give_back(self._holding, self.hand_over())
