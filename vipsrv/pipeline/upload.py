"""A picture as it came: bytes in memory, or the descriptor of a file."""

import mmap
import os
from typing import Self

import pyvips

from vipsrv.errors import CorruptImage

Memory = bytes | bytearray | memoryview


class Upload:
    """Where libvips reads a picture from, and how many bytes it is.

    The memory must stay as it is, and the descriptor open, until the job is over. ``source`` reads either
    and copies nothing; ``memory`` is ``None`` for a file. One source serves the header and the decode, for
    every loader of libvips rewinds it first; two over one descriptor would move each other's file offset.
    """

    def __init__(self, source: pyvips.Source, size: int, memory: Memory | None, descriptor: int) -> None:
        self.source = source
        self.size = size
        self.memory = memory
        self._descriptor = descriptor

    def head(self, count: int) -> bytes:
        """Up to the first ``count`` bytes."""
        return self.read(0, count)

    def read(self, start: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``start`` on, none behind the end."""
        if self.memory is not None:
            return bytes(self.memory[start : start + count])
        if start >= self.size:
            return b""
        return os.pread(self._descriptor, count, start)

    def view(self) -> memoryview:
        """All of its bytes, not copied: a file is mapped. Raises ``CorruptImage`` for an empty one.

        The mapping ends with the last that uses the view. The file must not become shorter until then, for
        whoever reads on would be killed (SIGBUS); mapping what is too short already raises ``ValueError``.
        """
        if self.memory is not None:
            return memoryview(self.memory)
        if self.size == 0:
            raise CorruptImage("the file is empty")
        return memoryview(mmap.mmap(self._descriptor, self.size, access=mmap.ACCESS_READ))

    @classmethod
    def from_memory(cls, data: Memory) -> Self:
        """A picture in memory."""
        return cls(pyvips.Source.new_from_memory(data), len(data), data, -1)

    @classmethod
    def from_descriptor(cls, descriptor: int, size: int) -> Self:
        """A picture of ``size`` bytes in an open, seekable file. The caller closes the descriptor."""
        source = pyvips.Source.new_from_descriptor(descriptor)
        return cls(source, size, None, descriptor)
