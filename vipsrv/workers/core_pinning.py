"""Pins each worker to one core, and moves a worker if its core is busy.

::

    a worker is ready ──► the core with the fewest workers
                            └── it had to wait for that core while another was idle ──► the idle core
    a job of several threads ──► all cores, until it is done

The threads of libvips hand the strips of an image to one another, and waking a thread on another core costs
more than computing a small strip. Four workers with one core each process 25 to 50 % more JPEGs of 640 × 480
pixels a second than four workers that are not pinned. The system may still run other processes on that core,
so the waiting times are checked once a second. One worker moves at a time; the next check shows whether that
was enough.
"""

import logging
import os
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from vipsrv.workers.process_table import threads_of

WAITED_SHARE = 0.2
"""Share of the time: a worker that was ready to run but waited for its core longer than this may move."""

IDLE_SHARE = 0.5
"""Share of the time: a worker may move to a core that was idle for longer than this."""

_NS = 1_000_000_000
_PROC = Path("/proc")
_IDLE_FIELDS = slice(3, 5)  # of a line of /proc/stat: idle, and idle while waiting for a disk

_log = logging.getLogger(__name__)


class CorePinning:
    """Pins each worker, given by process id, to one of the ``cores``, beginning with the first core."""

    def __init__(self, cores: Iterable[int]) -> None:
        self._cores = list(cores)
        self._core_of: dict[int, int] = {}
        self._spread: set[int] = set()
        self._waited: dict[int, int] = {}
        self._ticks: dict[int, tuple[int, int]] = {}
        self._refusals: set[int | None] = set()

    @classmethod
    def create(cls) -> "CorePinning | None":
        """Return a pinning to the cores of this process; ``None`` for a single core and outside Linux."""
        cores = []
        if hasattr(os, "sched_getaffinity"):
            with suppress(OSError):  # a system call filter may refuse it
                cores = list(os.sched_getaffinity(0))
        # Shuffled, so that several small servers on a machine do not all begin with the same core.
        random.shuffle(cores)
        return cls(cores) if len(cores) > 1 and _PROC.joinpath("self/schedstat").exists() else None

    def add(self, pid: int) -> None:
        """Pin a new worker to the core that has the fewest workers."""
        taken = Counter(self._core_of.values())
        self._keep_to(pid, min(self._cores, key=lambda core: taken[core]))

    def remove(self, pid: int) -> None:
        """Forget a worker that has ended."""
        self._core_of.pop(pid, None)
        self._waited.pop(pid, None)
        self._spread.discard(pid)

    def spread(self, pid: int) -> None:
        """Let a worker use all cores until ``gather``."""
        if pid in self._core_of:
            self._spread.add(pid)
            self._confine(pid, self._cores)

    def gather(self, pid: int) -> None:
        """Pin a worker to its own core again after ``spread``; do nothing for other workers."""
        if pid in self._spread:
            self._spread.discard(pid)
            self._waited.pop(pid, None)  # it was measured for several threads
            self._keep_to(pid, self._core_of[pid])

    def balance(self) -> None:
        """Move one worker that had to wait for its core while another was idle. Call it once a second.

        Where the times of the cores cannot be read (systemd's ``ProcSubset=pid``, no descriptor left), no
        worker moves.
        """
        idle = self._idle_shares()
        waits = {pid: self._waited_share(pid) for pid in self._core_of if pid not in self._spread}
        move = best_move(waits, self._core_of, idle)
        if move is not None:
            self._keep_to(*move)

    def _keep_to(self, pid: int, core: int) -> None:
        self._core_of[pid] = core
        self._confine(pid, [core])

    def _confine(self, pid: int, cores: Iterable[int]) -> None:
        """Pin a worker to these cores. A refusal is logged once: the system's reason holds for all workers.

        The allowed cores may have changed, or the call is forbidden, or no descriptor is left to read /proc.
        """
        try:
            confine(pid, cores)
        except OSError as error:
            if error.errno not in self._refusals:
                self._refusals.add(error.errno)
                _log.warning("worker %d cannot be pinned to a core: %s", pid, error)

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
    """Return the process id of the worker that should move, and its new core; ``None`` if no worker should.

    ``waits`` is the share of the time that each worker waited for its core, ``idle`` the share that each core
    was idle.
    """
    if not waits or not idle:
        return None
    pid = max(waits, key=lambda one: waits[one])
    core = max(idle, key=lambda one: idle[one])
    if waits[pid] < WAITED_SHARE or idle[core] < IDLE_SHARE or core_of[pid] == core:
        return None
    return pid, core


def waited_ns(pid: int) -> int:
    """Return the nanoseconds that the threads of a process waited for a core; 0 if that cannot be read.

    The second field of /proc/PID/task/TID/schedstat (Linux, Documentation/scheduler/sched-stats).
    """
    waited = 0
    with suppress(OSError):
        for thread in threads_of(pid):
            with suppress(OSError):
                waited += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[1])
    return waited


def core_ticks() -> dict[int, tuple[int, int]]:
    """Return for each core its idle ticks and all its ticks since the system started (/proc/stat).

    There are none if that cannot be read.
    """
    ticks: dict[int, tuple[int, int]] = {}
    try:
        text = _PROC.joinpath("stat").read_text()
    except OSError:
        return ticks
    for line in text.splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            counts = [int(field) for field in fields[:8]]  # the later fields are included in the first two
            ticks[int(name[3:])] = sum(counts[_IDLE_FIELDS]), sum(counts)
    return ticks


def confine(pid: int, cores: Iterable[int]) -> None:
    """Pin the threads of a process, and those that they start, to these cores; do nothing if it has ended.

    Raises ``OSError``.
    """
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in threads_of(pid):
            with suppress(ProcessLookupError):  # this thread has ended
                os.sched_setaffinity(thread, cores)
