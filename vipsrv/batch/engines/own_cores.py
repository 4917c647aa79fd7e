"""Cores that a process takes for its server, so that several servers on a machine do not share some of them.

A server pins its workers to the cores that it may use, and does not know of other servers: two with one
worker each would often pin both to the same core, and leave them there as long as the other one is not idle.
"""

import os
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from vipsrv.address import Address
from vipsrv.batch.manifest.file_lock import Locked, lock_file
from vipsrv.client.embedded import EmbeddedServer
from vipsrv.errors import StorageFailed


def take_cores(number: int, stack: ExitStack) -> set[int]:
    """Take some of the cores that this process may use and that no other process has taken this way.

    They are given back with the stack, or when this process is killed. Returns none if this process has no
    more cores than ``number``, if so many are not free, or where the system does not tell.
    """
    if not hasattr(os, "sched_getaffinity"):
        return set()
    allowed = sorted(os.sched_getaffinity(0))
    taken: set[int] = set()
    if number >= len(allowed):
        return taken
    with ExitStack() as locks, suppress(OSError, StorageFailed):
        folder = Path(tempfile.gettempdir()) / f"vipsrv-cores-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        for core in allowed:
            path = folder / str(core)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            locks.callback(os.close, descriptor)
            with suppress(Locked):
                lock_file(descriptor, path)
                taken.add(core)
            if len(taken) == number:
                stack.push(locks.pop_all())
                return taken
    return set()


class ServerOnCores(EmbeddedServer):
    """A server that uses only these cores; with none, all that this process may use."""

    def __init__(self, cores: set[int], *, path: Path, workers: int) -> None:
        super().__init__(path=path, workers=workers)
        self._cores = cores

    def start(self) -> Address:
        """Start it if it does not run yet, and return its address once it accepts connections."""
        if not self._cores:
            return super().start()
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cores)  # of this thread: the process that it starts inherits it
        try:
            return super().start()
        finally:
            os.sched_setaffinity(0, before)
