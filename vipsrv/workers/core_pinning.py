"""On which core each worker runs.

::

    a worker is ready ──► the core with the fewest workers
                            └── it had to wait for that one while another was idle ──► the idle one
    a job of several threads ──► all cores, until it is done

The threads of libvips hand the strips of a picture to one another, and to wake a thread on another core costs
more than a small strip: kept to one core each, four workers answer a quarter to a half more 640 × 480 JPEGs a
second. The system may still put others on that core, so once a second it is looked whether one is in the way;
only one worker moves at a time, and the next second tells whether that was enough.
"""

import logging
import os
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

WAITED_SHARE = 0.2
"""Of a second: a worker that was ready to run and did not for so long should be elsewhere, ..."""

IDLE_SHARE = 0.5
"""... where there is a core that was idle for so long."""

_NS = 1_000_000_000
_PROC = Path("/proc")
_IDLE_FIELDS = slice(3, 5)  # of a line of /proc/stat: idle, and idle while waiting for a disk

_log = logging.getLogger(__name__)


class Placement:
    """Keeps workers, by their process ids, to one of the ``cores`` each; the first ones are given first."""

    def __init__(self, cores: Iterable[int]) -> None:
        self._cores = list(cores)
        self._core_of: dict[int, int] = {}
        self._spread: set[int] = set()
        self._waited: dict[int, int] = {}
        self._ticks: dict[int, tuple[int, int]] = {}

    @classmethod
    def create(cls) -> "Placement | None":
        """One for the cores that this process may use; ``None`` for a single one, and where the system has
        no such thing (it is not Linux).
        """
        cores = list(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
        # So that several small servers on a machine do not all begin with the same core.
        random.shuffle(cores)
        return cls(cores) if len(cores) > 1 and _PROC.joinpath("self/schedstat").exists() else None

    def add(self, pid: int) -> None:
        """Keep a worker to the core that has the fewest."""
        taken = Counter(self._core_of.values())
        self._keep_to(pid, min(self._cores, key=lambda core: taken[core]))

    def remove(self, pid: int) -> None:
        """A worker is gone."""
        self._core_of.pop(pid, None)
        self._waited.pop(pid, None)
        self._spread.discard(pid)

    def spread(self, pid: int) -> None:
        """Let a worker use all cores, until it is gathered."""
        if pid in self._core_of:
            self._spread.add(pid)
            _confine(pid, self._cores)

    def gather(self, pid: int) -> None:
        """Keep a worker that was spread to its own core again."""
        if pid in self._spread:
            self._spread.discard(pid)
            self._waited.pop(pid, None)  # in which it counted for all its threads
            self._keep_to(pid, self._core_of[pid])

    def balance(self) -> None:
        """To be called once a second: move a worker that had to wait while there was an idle core."""
        idle = self._idle_shares()
        waits = {pid: self._waited_share(pid) for pid in self._core_of if pid not in self._spread}
        move = best_move(waits, self._core_of, idle)
        if move is not None:
            self._keep_to(*move)

    def _keep_to(self, pid: int, core: int) -> None:
        self._core_of[pid] = core
        _confine(pid, [core])

    def _waited_share(self, pid: int) -> float:
        waited = waited_ns(pid)
        before = self._waited.get(pid, waited)
        self._waited[pid] = waited
        return (waited - before) / _NS

    def _idle_shares(self) -> dict[int, float]:
        shares = {}
        for core, (idle, total) in core_ticks().items():
            idle_before, total_before = self._ticks.get(core, (idle, total))
            self._ticks[core] = idle, total
            if core in self._cores and total > total_before:
                shares[core] = (idle - idle_before) / (total - total_before)
        return shares


def best_move(
    waits: Mapping[int, float], core_of: Mapping[int, int], idle: Mapping[int, float]
) -> tuple[int, int] | None:
    """The worker that should move, and to which core, or ``None``.

    ``waits`` is the share of the time in which a worker, by its process id, waited for its core; ``idle`` the
    share in which a core had nothing to do.
    """
    if not waits or not idle:
        return None
    pid = max(waits, key=lambda one: waits[one])
    core = max(idle, key=lambda one: idle[one])
    if waits[pid] < WAITED_SHARE or idle[core] < IDLE_SHARE or core_of[pid] == core:
        return None
    return pid, core


def waited_ns(pid: int) -> int:
    """Nanoseconds that the threads of a process were ready and did not run, together; 0 for one that is gone.

    The second field of /proc/PID/task/TID/schedstat (Linux, Documentation/scheduler/sched-stats).
    """
    waited = 0
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in _PROC.joinpath(str(pid), "task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                waited += int(thread.joinpath("schedstat").read_text().split()[1])
    return waited


def core_ticks() -> dict[int, tuple[int, int]]:
    """For each core the ticks in which it was idle and all of them, since the start (/proc/stat)."""
    ticks = {}
    for line in _PROC.joinpath("stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            counts = [int(field) for field in fields[:8]]  # those behind are counted in the first two, too
            ticks[int(name[3:])] = sum(counts[_IDLE_FIELDS]), sum(counts)
    return ticks


def _confine(pid: int, cores: Iterable[int]) -> None:
    """Keep all threads of a process to these cores; threads that they start will be, too."""
    try:
        for thread in _PROC.joinpath(str(pid), "task").iterdir():
            with suppress(ProcessLookupError):  # this thread has ended
                os.sched_setaffinity(int(thread.name), cores)
    except (FileNotFoundError, ProcessLookupError):
        return  # the process has
    except OSError as error:
        # The cores that may be used have changed, it is forbidden here, or no descriptor is left to look.
        _log.warning("worker %d cannot be kept to a core: %s", pid, error)
