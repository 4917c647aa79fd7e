"""A server as a process of its own, and what the kernel says of it: CPU time, memory, switches, calls."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_SCHEDULED_TIME = 2  # CPUCLOCK_SCHED of Linux


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process has used so far, or between two looks at it.

    ``cpu_ns``: user and system time in nanoseconds, of threads that have ended, too. ``waits`` and
    ``preemptions``: voluntary and other context switches of its present threads. ``reads`` and ``writes``:
    system calls of the ``read`` and the ``write`` family (``syscr`` and ``syscw`` of /proc/PID/io), among
    which Linux does not count ``recv``, ``send`` and their kin.
    """

    cpu_ns: int
    waits: int
    preemptions: int
    reads: int
    writes: int

    def __sub__(self, before: "Usage") -> "Usage":
        return Usage(
            **{one.name: getattr(self, one.name) - getattr(before, one.name) for one in fields(Usage)}
        )


def cpu_nanoseconds(pid: int) -> int:
    """User and system time of a process so far, by its own clock; that of threads that have ended is in it.

    Raises ``ProcessLookupError`` where there is none.
    """
    # clock_getcpuclockid(3): a process' clock is the complement of its number and, in three bits, which one.
    try:
        return time.clock_gettime_ns(~pid << 3 | _SCHEDULED_TIME)
    except OSError:
        raise ProcessLookupError(f"there is no process {pid}") from None


def cpu_seconds(pid: int) -> float:
    """``cpu_nanoseconds`` as seconds."""
    return cpu_nanoseconds(pid) / 1e9


def tree_cpu_seconds(pid: int) -> float:
    """The same of a process and all that descend from it; of those that have ended (and were waited for) in
    steps of a hundredth of a second.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ended = (int(fields[13]) + int(fields[14])) / _TICKS_PER_SECOND
    return cpu_seconds(pid) + ended + sum(tree_cpu_seconds(child) for child in children(pid))


def children(pid: int) -> list[int]:
    """The processes that a process has started, from whichever of its threads."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def usage(pid: int) -> Usage:
    """What a process has used so far. Raises ``OSError`` for one that is gone or another user's."""
    totals = dict.fromkeys(("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"), 0)
    for thread in _threads(pid):
        for name in totals:
            totals[name] += int(thread[name])
    calls = _numbers(Path(f"/proc/{pid}/io"))
    return Usage(
        cpu_ns=cpu_nanoseconds(pid),
        waits=totals["voluntary_ctxt_switches"],
        preemptions=totals["nonvoluntary_ctxt_switches"],
        reads=int(calls["syscr"]),
        writes=int(calls["syscw"]),
    )


def anonymous_bytes(pid: int) -> int:
    """The anonymous memory of a process now (RssAnon and RssShmem of /proc/PID/status); 0 once it has ended.

    Raises ``FileNotFoundError`` where there is none, not even one that was not waited for.
    """
    status = _numbers(Path(f"/proc/{pid}/status"))
    if "VmSize" not in status:  # it is ending, or has ended, and its memory is gone
        return 0
    return sum(int(status[name].split()[0]) for name in ("RssAnon", "RssShmem")) * 1024


def _threads(pid: int) -> Iterator[dict[str, str]]:
    for path in Path(f"/proc/{pid}/task").iterdir():
        try:
            yield _numbers(path / "status")
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that has ended meanwhile


def _numbers(path: Path) -> dict[str, str]:
    return dict(line.split(":", 1) for line in path.read_text().splitlines())
