"""Descriptors that are kept for starting workers, so that a server that has used up all others can do it.

::

    with reserve.lent():     # if a start failed because no descriptor was left
        start again          # the lent descriptors are free for it
    …
    reserve.refill()         # regularly: take back what has become free
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

WORKER_DESCRIPTORS = 12
"""Descriptors that starting a worker takes for a moment: two sockets, two for the shared memory, because
Python's mmap duplicates its descriptor, four pipe ends and /dev/null; the rest is for a look at /proc
meanwhile. A running worker keeps two, a starting one three."""

_USED_UP = frozenset({errno.EMFILE, errno.ENFILE})


class DescriptorReserve:
    """At most ``size`` descriptors of /dev/null, which have no other use than to be closed."""

    def __init__(self, size: int = WORKER_DESCRIPTORS) -> None:
        self._size = size
        self._held: list[int] = []
        self.refill()

    @property
    def held(self) -> int:
        """The number of descriptors in the reserve."""
        return len(self._held)

    def refill(self) -> None:
        """Take as many descriptors as are missing, or as many as there are."""
        try:
            while len(self._held) < self._size:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return  # the next call takes more

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Free the descriptors for what the caller does within."""
        self.close()
        try:
            yield
        finally:
            self.refill()

    def close(self) -> None:
        """Free the descriptors."""
        while self._held:
            os.close(self._held.pop())


def is_used_up(error: OSError) -> bool:
    """Whether an error says that the process or the system has no descriptor left."""
    return error.errno in _USED_UP
