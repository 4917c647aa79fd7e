"""What the kernel's process table (/proc) says about a worker: threads, children, memory.

A worker may have been taken over, so each look is bounded: it costs the same for a worker with 12,000 threads
as for one with ``WALKED_THREADS``. What cannot be read (no /proc, no descriptor left, the process has ended)
counts as unknown, never as an error of the gateway.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

WALKED_THREADS = 200
"""Maximum threads of a process that are looked at."""

_WALKED_CHILDREN = 64 * 1024  # bytes of process ids after which no more are read for a thread

_PROC = "/proc"

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A process: the number of its threads, the bytes of its anonymous memory and page tables together, and
    whether its first thread has ended. The memory of such a process is unknown and counts as 0.
    """

    threads: int
    memory: int
    first_thread_ended: bool


def read_status(pid: int) -> ProcessStatus | None:
    """Return the status of a process, ``None`` if it is unknown (/proc/PID/status)."""
    fields = _status_fields(pid)
    try:
        return ProcessStatus(
            threads=int(fields["Threads"]),
            memory=sum(int(fields.get(name, "0").split()[0]) for name in ("RssAnon", "VmPTE")) * 1024,
            first_thread_ended=fields.get("State", "").startswith("Z"),
        )
    except (KeyError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """The CPU time of a process, user and system, and the bytes of its resident memory."""

    cpu_seconds: float
    resident: int


def read_usage(pid: int) -> ProcessUsage | None:
    """Return what a process uses, ``None`` if it is unknown (/proc/PID/stat, see proc(5))."""
    try:
        text = Path(f"{_PROC}/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the name of the program in parentheses, which may have any characters.
    fields = text.rpartition(")")[2].split()
    try:
        user, system, pages = (int(fields[number - 3]) for number in (14, 15, 24))
    except (IndexError, ValueError):
        return None
    return ProcessUsage((user + system) / _TICKS, pages * _PAGE)


def is_hidden(pid: int) -> bool:
    """Whether /proc shows this process, but not the running process ``pid`` (mounted with ``hidepid``)."""
    return os.access(f"{_PROC}/self/status", os.R_OK) and not os.access(f"{_PROC}/{pid}/status", os.R_OK)


def has_new_privileges_forbidden(pid: int) -> bool | None:
    """Return whether a process has ``no_new_privs``, which all its descendants inherit and none can drop.

    ``None`` if it is unknown.
    """
    value = _status_fields(pid).get("NoNewPrivs")
    return None if value is None else value != "0"


def threads_of(pid: int) -> Iterator[int]:
    """Yield the ids of the first ``WALKED_THREADS`` threads of a process. Raises ``OSError``."""
    with os.scandir(f"{_PROC}/{pid}/task") as threads:
        for thread in islice(threads, WALKED_THREADS):
            yield int(thread.name)


def children_of(pid: int) -> set[int]:
    """Return child processes of a process; not all if it has many threads or children.

    The kernel lists them for each thread (/proc/PID/task/TID/children, if it was built with
    CONFIG_PROC_CHILDREN).
    """
    children: set[int] = set()
    with suppress(OSError):
        for thread in threads_of(pid):
            with suppress(OSError):
                children.update(_children_of_thread(pid, thread))
    return children


def _children_of_thread(pid: int, thread: int) -> list[int]:
    descriptor = os.open(f"{_PROC}/{pid}/task/{thread}/children", os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        # The kernel gives a page at a time.
        while len(data) < _WALKED_CHILDREN and (part := os.read(descriptor, _WALKED_CHILDREN)):
            data += part
    finally:
        os.close(descriptor)
    whole, _, _cut_off = data.rpartition(b" ")  # each process id is followed by a space
    return [int(child) for child in whole.split()]


def _status_fields(pid: int) -> dict[str, str]:
    try:
        text = Path(f"{_PROC}/{pid}/status").read_text()
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in lines}
