"""Kills processes that a worker has started and left behind.

A worker starts no process. One that has been taken over might, and end itself: the kernel then gives the
process that it leaves to the gateway (``process_control.adopt_orphans``). In a container the gateway may be
the first process, to which the kernel gives all orphans, for example those of ``docker exec``. Workers and
their descendants have ``no_new_privs``, which cannot be dropped: an orphan without it comes from elsewhere
and is left alone until it has ended. If the gateway has it as well, all orphans are killed.
"""

import logging
import os
import signal
from collections.abc import Collection
from contextlib import suppress

from vipsrv.workers.process_control import adopts_orphans
from vipsrv.workers.process_table import children_of, has_new_privileges_forbidden

_log = logging.getLogger(__name__)


class Orphans:
    """The children of this process that it did not start."""

    def __init__(self) -> None:
        self._here_before = children_of(os.getpid())
        self._killed: set[int] = set()

    @classmethod
    def create(cls) -> "Orphans | None":
        """Return them, or ``None`` if this process gets none. Call it before the first worker starts."""
        return cls() if adopts_orphans() else None

    def end(self, own: Collection[int], why: str = "a worker has started it") -> None:
        """Kill orphans of workers and reap what has ended; ``why`` is for the log.

        ``own`` are the process ids of the workers, those included that have ended and are not reaped yet.
        """
        for pid in children_of(os.getpid()) - self._here_before:
            if pid in own:
                continue
            if pid not in self._killed and has_new_privileges_forbidden(pid) is not False:
                _log.warning("process %d is killed: %s", pid, why)
                self._killed.add(pid)
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    self._killed.discard(pid)
