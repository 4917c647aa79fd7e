"""CPU time, resident memory and open files of a gateway and its workers, read from /proc.

Read at most once in ``FRESH_SECONDS``, so that frequent scrapes of a server with many workers cost no more.
Where there is no /proc, or it hides the workers, their figures are missing.
"""

import math
import os
import resource
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from vipsrv.workers.process_table import ProcessUsage, read_usage

FRESH_SECONDS = 1.0
"""How old figures may be."""

_OWN_FILES = Path("/proc/self/fd")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a gateway and its workers use; ``None`` is unknown.

    The CPU seconds of ``workers`` include those of workers that have ended; ``largest_worker`` is the
    resident memory of one.
    """

    gateway: ProcessUsage
    workers: ProcessUsage | None
    largest_worker: int
    open_files: int | None
    open_files_limit: int | None


class GatewayProcesses:
    """Reads the usage of this process, and of its children that ``pids`` returns."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._usage: Usage | None = None
        self._read_at = -math.inf

    def usage(self, now: float) -> Usage:
        """Return what was read at ``now``, in seconds of ``time.monotonic``, or not long before."""
        if self._usage is None or now - self._read_at >= FRESH_SECONDS:
            self._usage, self._read_at = self._read(), now
        return self._usage

    def _read(self) -> Usage:
        times = os.times()
        own = own_usage()
        found = [read_usage(pid) for pid in self._pids()]
        workers = [one for one in found if one is not None]
        resident = [one.resident for one in workers]
        # Those that have ended are in the times of the children once they are reaped, until then in /proc.
        ended = times.children_user + times.children_system
        together = ProcessUsage(ended + sum(one.cpu_seconds for one in workers), sum(resident))
        return Usage(
            gateway=own,
            workers=together if len(workers) == len(found) else None,
            largest_worker=max(resident, default=0),
            open_files=_open_files(),
            open_files_limit=_open_files_limit(),
        )


def own_usage() -> ProcessUsage:
    """Return the usage of this process."""
    usage, times = read_usage(os.getpid()), os.times()
    return ProcessUsage(times.user + times.system, 0 if usage is None else usage.resident)


def _open_files() -> int | None:
    try:
        return sum(1 for _ in _OWN_FILES.iterdir()) - 1  # without the one that lists them
    except OSError:
        return None


def _open_files_limit() -> int | None:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if limit == resource.RLIM_INFINITY else limit
