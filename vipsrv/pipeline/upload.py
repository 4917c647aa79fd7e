"""The encoded image as it was uploaded: bytes in memory, or the descriptor of a file."""

import mmap
import os
from typing import Any, Self

import pyvips

from vipsrv.errors import CorruptImage

Memory = bytes | bytearray | memoryview


class Upload:
    """An encoded image of ``size`` bytes, and the ``source`` from which libvips reads it without a copy.

    ``memory`` is ``None`` for a file. The memory must not change, and the descriptor must stay open, until
    the job is over. One source serves both the header and the decode, because every loader of libvips rewinds
    it first; two sources on one descriptor would move each other's file offset. In ``memo`` the reader of a
    format keeps what it has parsed and needs again.
    """

    def __init__(self, source: pyvips.Source, size: int, memory: Memory | None, descriptor: int) -> None:
        self.source = source
        self.size = size
        self.memory = memory
        self._descriptor = descriptor
        self.memo: dict[str, Any] = {}

    def head(self, count: int) -> bytes:
        """Return up to the first ``count`` bytes."""
        return self.read(0, count)

    def read(self, start: int, count: int) -> bytes:
        """Return up to ``count`` bytes from ``start`` on, fewer at the end of the file."""
        if self.memory is not None:
            return bytes(self.memory[start : start + count])
        if start >= self.size:
            return b""
        return os.pread(self._descriptor, count, start)

    def view(self) -> memoryview:
        """Return all bytes without a copy: a file is mapped. Raises ``CorruptImage`` for an empty file.

        The mapping exists as long as anything uses the view. The file must not become shorter during that
        time, because reading beyond its end kills the process (SIGBUS). Mapping a file that is already too
        short raises ``ValueError``.
        """
        if self.memory is not None:
            return memoryview(self.memory)
        if self.size == 0:
            raise CorruptImage("the file is empty")
        return memoryview(mmap.mmap(self._descriptor, self.size, access=mmap.ACCESS_READ))

    @classmethod
    def from_memory(cls, data: Memory) -> Self:
        """Make an upload in memory."""
        return cls(pyvips.Source.new_from_memory(data), len(data), data, -1)

    @classmethod
    def from_descriptor(cls, descriptor: int, size: int) -> Self:
        """Make an upload of ``size`` bytes in an open, seekable file. The caller closes the descriptor."""
        source = pyvips.Source.new_from_descriptor(descriptor)
        return cls(source, size, None, descriptor)
