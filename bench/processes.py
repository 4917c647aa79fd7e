"""A server as a process of its own, and what the kernel says of it: CPU time and memory, from /proc."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_SCHEDULED_TIME = 2  # CPUCLOCK_SCHED of Linux
_READY = re.compile(r"vipsrv listening on (.*):(\d+)\n")


class Server:
    """``vipsrv serve`` on a free loopback port with these further arguments, ended with the ``with``."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vipsrv", "serve", "--port", "0", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        ready = _READY.fullmatch(self.process.stdout.readline())
        if ready is None:
            self.process.wait()
            raise SystemExit("the server did not start; see above")
        self.host, self.port = ready[1], int(ready[2])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate()

    @property
    def pids(self) -> list[int]:
        """The gateway's and then its workers'."""
        return [self.process.pid, *children(self.process.pid)]

    def cpu_seconds(self) -> list[float]:
        """User and system time of each of ``pids`` so far."""
        return [cpu_seconds(pid) for pid in self.pids]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, by its own clock, in nanoseconds' steps; that of threads that have
    ended is in it. Raises ``ProcessLookupError`` where there is none.
    """
    # clock_getcpuclockid(3): a process' clock is the complement of its number and, in three bits, which one.
    try:
        return time.clock_gettime(~pid << 3 | _SCHEDULED_TIME)
    except OSError:
        raise ProcessLookupError(f"there is no process {pid}") from None


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


def anonymous_bytes(pid: int) -> int:
    """The anonymous memory of a process now (RssAnon and RssShmem of /proc/PID/status)."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(status[name].split()[0]) for name in ("RssAnon", "RssShmem")) * 1024
