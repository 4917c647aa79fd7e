"""Memory that the gateway shares with one worker for the worker's life: how small images reach it.

The gateway writes and the worker reads, in turns: an image is put there only while the worker has no job. The
image is copied once, and no process has to be woken for the copy; a socket copies twice, a few pages at a
time. No other worker sees this memory. Its size is sealed, because a worker that shrank it would crash the
gateway (SIGBUS).
"""

import errno
import fcntl
import logging
import mmap
import os
from collections.abc import Iterable

from vipsrv.worker_config import IN_MEMORY_SIZE

_REFUSED = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL})
"""The errors of a system that forbids or lacks sealed memory; any other says that there is no room."""

_log = logging.getLogger(__name__)


class SharedMemory:
    """The gateway's end: ``IN_MEMORY_SIZE`` bytes; pages that were never written take no room.

    The worker inherits ``descriptor``; call ``close_descriptor`` afterwards. Raises ``OSError`` if there is
    no room.
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
        """Return new shared memory, or ``None`` on systems that have none which can be sealed.

        Raises ``OSError`` if there is no room.
        """
        if not hasattr(os, "memfd_create"):
            return None
        try:
            return cls()
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            _log.warning("no memory can be shared with a worker, images are sent to it: %s", error)
            return None

    def close_descriptor(self) -> None:
        """Close the descriptor; the mapping remains."""
        os.close(self.descriptor)

    def put(self, views: Iterable[memoryview]) -> None:
        """Copy an image to the start of the memory."""
        end = 0
        for view in views:
            start, end = end, end + len(view)
            self._view[start:end] = view

    def close(self) -> None:
        """Unmap the memory; it is freed when the worker has ended as well."""
        self._view.release()
        self._map.close()


def attach(descriptor: int) -> memoryview:
    """Map the same memory in the worker, read-only."""
    return memoryview(mmap.mmap(descriptor, IN_MEMORY_SIZE, prot=mmap.PROT_READ))
