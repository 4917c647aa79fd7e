"""Processes that each repeat one operation: the clients of a server, or loops without a server."""

import base64
import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from bench import ROOT
from bench.measuring.processes import cpu_seconds
from vipsrv.workers.launch import worker_environment

_MEMBER = "VIPSRV_BENCH_GROUP_MEMBER"

LEAST = 2
"""The least number of repetitions: a rate is taken between two completions."""


@dataclass(frozen=True)
class GroupRun:
    """What a group did: ``done`` operations, ``rate`` a second while all members were running.

    ``speed`` is also operations a second, but adds up the members' own rates, each until its own end: a
    member that shares its core with another program, and ends long after the others, lowers it only by its
    own part. ``latencies`` are the seconds of each operation: of all members, in no order. ``wrong`` results
    did not pass the check of ``ProcessGroup.check``; ``problem`` says why one of them did not.
    """

    done: int
    rate: float
    speed: float
    wall_seconds: float
    cpu_seconds: float
    latencies: list[float] = field(default_factory=list, repr=False)
    wrong: int = 0
    problem: str | None = None


class ProcessGroup:
    """``size`` processes on these cores, which run while the ``with`` lasts.

    ``environment`` is added to this process's environment.
    """

    def __init__(self, size: int, cores: Sequence[int], **environment: str) -> None:
        self._size = size
        self._cores = cores
        self._environment = os.environ | environment
        self._members: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        with confined_to(self._cores):
            for number in range(self._size):
                member = subprocess.Popen(
                    [sys.executable, "-m", "bench.measuring.process_group_member"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=self._environment | {_MEMBER: str(number)},
                    cwd=ROOT,
                )
                self._members.append(member)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for member in self._members:
            assert member.stdin is not None
            assert member.stdout is not None
            with contextlib.suppress(BrokenPipeError):  # the process has ended already
                member.stdin.close()
        for member in self._members:
            if kind is not None:
                member.kill()  # it may be in the middle of a long operation
            member.wait()
            assert member.stdout is not None
            member.stdout.close()
        self._members.clear()

    def restart(self) -> None:
        """End all members, whatever they do, and start new ones, which have to be prepared."""
        for member in self._members:
            member.kill()
        self.__exit__(None, None, None)
        self.__enter__()

    @property
    def pids(self) -> list[int]:
        """The ids of the processes."""
        return [member.pid for member in self._members]

    def cpu_seconds(self) -> float:
        """User and system time of all processes so far."""
        return sum(cpu_seconds(pid) for pid in self.pids)

    def prepare(self, module: str, **arguments: Any) -> bytes:
        """Have each member call ``module.prepare(**arguments)``, which returns the operation to repeat.

        Returns the result of the operation's first call. Raises ``RuntimeError`` if a member fails; standard
        error says why.
        """
        (first, *_) = self._order({"module": module, "arguments": arguments})
        return base64.b64decode(first["result"])

    def check(self, module: str, **arguments: Any) -> str | None:
        """Have each member check its results by ``module.checker(**arguments)`` until it is prepared again.

        Returns what is wrong with the first result, if anything is.
        """
        (first, *_) = self._order({"check": module, "arguments": arguments})
        problem: str | None = first["problem"]
        return problem

    def work(self, *, seconds: float | None = None, count: int | None = None) -> GroupRun:
        """Have all members repeat the operation at the same time, for some seconds or ``count`` times each.

        Raises ``RuntimeError`` if a member fails.
        """
        started = time.monotonic()
        until = started + seconds if seconds is not None else None
        replies = self._order({"until": until, "count": count})
        wall = time.monotonic() - started
        return GroupRun(
            done=sum(len(reply["completed"]) for reply in replies),
            rate=sum(rate(reply["completed"], until) for reply in replies),
            speed=sum(len(reply["completed"]) / (reply["completed"][-1] - started) for reply in replies),
            wall_seconds=wall,
            cpu_seconds=sum(reply["cpu_seconds"] for reply in replies),
            latencies=[
                end - start
                for reply in replies
                for start, end in itertools.pairwise([reply["started"], *reply["completed"]])
            ],
            wrong=sum(reply["wrong"] for reply in replies),
            problem=next((reply["problem"] for reply in replies if reply["problem"]), None),
        )

    def _order(self, order: dict[str, Any]) -> list[dict[str, Any]]:
        line = json.dumps(order) + "\n"
        for member in self._members:
            assert member.stdin is not None
            try:
                member.stdin.write(line)
                member.stdin.flush()
            except BrokenPipeError:
                raise _ended(member) from None
        replies = []
        for member in self._members:
            assert member.stdout is not None
            reply = member.stdout.readline()
            if not reply:
                raise _ended(member)
            replies.append(json.loads(reply))
        return replies


def _ended(member: subprocess.Popen[str]) -> RuntimeError:
    return RuntimeError(f"process {member.pid} of a group has ended; its messages are above")


def worker_settings() -> dict[str, str]:
    """Return a worker's environment variables for libvips and malloc, which are read at a process' start."""
    return {
        name: value
        for name, value in worker_environment().items()
        if name == "VIPS_CONCURRENCY" or name.startswith("MALLOC_")
    }


def member_number() -> int:
    """In a member process: its index in the group, from 0."""
    return int(os.environ[_MEMBER])


@contextlib.contextmanager
def confined_to(cores: Sequence[int]) -> Iterator[None]:
    """Processes started within the ``with`` may use these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def rate(completed: Sequence[float], until: float | None) -> float:
    """One member's operations a second.

    Counted from the first completion, which had to wait for all members to start, to the last one before
    ``until``, after which other members are idle; later ones count only if there would be too few.
    """
    within = [moment for moment in completed if until is None or moment <= until]
    counted = within if len(within) >= LEAST else completed
    if len(counted) == 1:
        return 0.0
    return (len(counted) - 1) / (counted[-1] - counted[0])
