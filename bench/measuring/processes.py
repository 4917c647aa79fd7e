"""What the kernel says about a process: CPU time, memory, context switches, system calls.

psutil reads what it can. Three values are read from the kernel here, because psutil does not give them: CPU
time in nanoseconds (psutil: hundredths of a second), context switches of all threads (psutil: of the first
thread), and anonymous memory (psutil: resident memory, which counts mapped files, or the sums of ``smaps``,
which take milliseconds to collect).
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

_SCHEDULED_TIME = 2  # CPUCLOCK_SCHED of Linux


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process has used so far, or between two moments.

    ``cpu_ns``: user and system time in nanoseconds, of threads that have ended, too. ``waits`` and
    ``preemptions``: voluntary and involuntary context switches of its present threads. ``reads`` and
    ``writes``: system calls of the ``read`` and the ``write`` family (``syscr`` and ``syscw`` of
    /proc/PID/io), in which Linux does not count ``recv``, ``send`` and the like.
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
    """User and system time of a process so far, by its own clock, including threads that have ended.

    Raises ``ProcessLookupError`` if there is no such process.
    """
    # clock_getcpuclockid(3): the clock of a process is the complement of its id, and three bits that select
    # one of its clocks.
    try:
        return time.clock_gettime_ns(~pid << 3 | _SCHEDULED_TIME)
    except OSError:
        raise ProcessLookupError(f"there is no process {pid}") from None


def cpu_seconds(pid: int) -> float:
    """``cpu_nanoseconds`` in seconds."""
    return cpu_nanoseconds(pid) / 1e9


def tree_cpu_seconds(pid: int) -> float:
    """CPU time of a process and of all its descendants.

    For descendants that have ended and were waited for, in steps of a hundredth of a second; one that ends
    while it is read is left out. Raises ``psutil.NoSuchProcess`` if there is no such process.
    """
    times = psutil.Process(pid).cpu_times()
    total = cpu_seconds(pid) + times.children_user + times.children_system
    for child in children(pid):
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            total += tree_cpu_seconds(child)
    return total


def children(pid: int) -> list[int]:
    """The ids of the processes that a process has started, in ascending order.

    Raises ``psutil.NoSuchProcess`` if there is no such process.
    """
    return sorted(child.pid for child in psutil.Process(pid).children())


def usage(pid: int) -> Usage:
    """What a process has used so far. Raises ``OSError`` if it is gone or belongs to another user."""
    totals = dict.fromkeys(("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"), 0)
    for thread in _threads(pid):
        for name in totals:
            totals[name] += int(thread[name])
    calls = psutil.Process(pid).io_counters()
    return Usage(
        cpu_ns=cpu_nanoseconds(pid),
        waits=totals["voluntary_ctxt_switches"],
        preemptions=totals["nonvoluntary_ctxt_switches"],
        reads=calls.read_count,
        writes=calls.write_count,
    )


def anonymous_bytes(pid: int) -> int:
    """The anonymous memory of a process now: RssAnon and RssShmem of /proc/PID/status.

    0 if it has ended and was not waited for. Raises ``FileNotFoundError`` if there is no such process.
    """
    status = _status(Path(f"/proc/{pid}/status"))
    if "VmSize" not in status:  # it is ending or has ended, and its memory is gone
        return 0
    return sum(int(status[name].split()[0]) for name in ("RssAnon", "RssShmem")) * 1024


def peak_resident_bytes(pid: int) -> int:
    """The largest resident set of a process so far, with files that it maps: VmHWM of /proc/PID/status.

    ``ru_maxrss`` is at least that of the process that started it.
    Raises ``FileNotFoundError`` if there is no such process, ``KeyError`` if it has ended.
    """
    return int(_status(Path(f"/proc/{pid}/status"))["VmHWM"].split()[0]) * 1024


def proportional_bytes(pid: int) -> int:
    """The memory of a process now, without files: Pss_Anon and Pss_Shmem of /proc/PID/smaps_rollup.

    Memory that several processes share is divided between them, so that sums over processes count it once.
    The kernel walks the page tables for it, which takes milliseconds for a large process.
    0 if it has ended and was not waited for. Raises ``FileNotFoundError`` if there is no such process.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except ProcessLookupError:  # it has ended, and its memory is gone
        return 0
    rolled = dict(line.split(":", 1) for line in text.splitlines()[1:])
    return sum(int(rolled[name].split()[0]) for name in ("Pss_Anon", "Pss_Shmem")) * 1024


def _threads(pid: int) -> Iterator[dict[str, str]]:
    for path in Path(f"/proc/{pid}/task").iterdir():
        try:
            yield _status(path / "status")
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread ended after the folder was listed


def _status(path: Path) -> dict[str, str]:
    return dict(line.split(":", 1) for line in path.read_text().splitlines())
