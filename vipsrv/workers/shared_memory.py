"""Memory that the gateway and one worker share for the worker's life: how a small image reaches it.

The gateway writes, the worker reads, in turns: an image is put there only while the worker has no job. So it
is copied once and nobody is woken for it, where a socket copies it twice, a few pages at a time. No other
worker ever sees this memory. Its size is sealed: a worker that shrank it would crash the gateway (SIGBUS).
"""

import fcntl
import mmap
import os
from collections.abc import Iterable

from vipsrv.worker_config import IN_MEMORY_SIZE


class SharedMemory:
    """The gateway's end: ``IN_MEMORY_SIZE`` bytes, of which those never written take no room.

    ``descriptor`` is for the worker to inherit; ``close_descriptor`` when it has. Raises ``OSError`` where
    there is no room for it.
    """

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("vipsrv-worker", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, IN_MEMORY_SIZE)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)
            self._map = mmap.mmap(self.descriptor, IN_MEMORY_SIZE)
        except OSError:
            os.close(self.descriptor)
            raise
        self._view = memoryview(self._map)

    @classmethod
    def create(cls) -> "SharedMemory | None":
        """Such memory, or ``None`` where the system has none that can be sealed."""
        return cls() if hasattr(os, "memfd_create") else None

    def close_descriptor(self) -> None:
        """The mapping is enough from now on."""
        os.close(self.descriptor)

    def put(self, views: Iterable[memoryview]) -> None:
        """Copy an image in, from the start."""
        end = 0
        for view in views:
            start, end = end, end + len(view)
            self._view[start:end] = view

    def close(self) -> None:
        """Give the memory back, once the worker is gone, too."""
        self._view.release()
        self._map.close()


def attach(descriptor: int) -> memoryview:
    """The worker's end: the same memory, to be read only."""
    return memoryview(mmap.mmap(descriptor, IN_MEMORY_SIZE, prot=mmap.PROT_READ))
