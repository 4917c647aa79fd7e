"""Measures one row of a suite: a load in rounds, in turns with a loop that it is compared with.

Each round runs the loop first and then the server, so that other programs disturb both alike and their ratio
holds. A row's ``extra_info`` has the following values, per request and as the median of the rounds unless
stated otherwise:

====================================== =================================================================
``requests``                           in a round
``input_bytes``, ``output_bytes``      of an image and of its result
``compression_ratio``                  input bytes over output bytes
``ssim``                               of the result to its reference, in luma
``colour_difference``                  to the same, the mean of that of Cb and of Cr, which have 256 levels
``mb_per_second``                      of images, in 10**6 bytes
``gateway_cpu_ms``, ``workers_cpu_ms`` user and system time of the gateway, and of all workers together
``server_cpu_ms``                      both together
``worker_cpu_ms``                      a list, of each worker
``client_cpu_ms``                      of the process that sends the requests
``bare_cpu_ms``                        of the bare loop
``cpu_over_bare``                      the server's CPU time over the loop's
``cpu_over_bare_rounds``               the same for each round
``floor_cpu_ms``, ``cpu_over_floor``   of the codecs alone, and the server's CPU time over it
``gateway_over_bare``                  the gateway's CPU time over the loop's
``throughput_over_bare``               by the clock, against one loop a worker
``p50_ms``, ``p99_ms``                 from first byte to last, of all requests of all rounds
``idle_anonymous_mb``                  of all processes together before the row, in 10**6 bytes, including
                                       what malloc kept from earlier rows on the same server
``peak_anonymous_mb``                  the most during a separate run, sampled; since rows share a server, it
                                       is the most of all rows so far, not what this row needs
``gateway_waits``                      voluntary context switches
``gateway_preemptions``                involuntary context switches
``gateway_reads_writes``               ``syscr`` and ``syscw``, without ``recv`` and ``send``
``gateway_syscalls``                   all system calls, by ``strace -c`` in a separate run
``gateway_transfers``                  those of them that move bytes; slowness does not add to their number
====================================== =================================================================

A value that could not be measured is ``None``, and ``missing`` says why.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import pyvips
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measuring.processes import Usage, anonymous_bytes, usage
from bench.measuring.sampling import Peak
from bench.measuring.server import Server
from bench.measuring.strace import Calls, CannotTrace
from bench.suites.cases import Case, quality
from bench.suites.loads import Answers, Load
from bench.suites.loops import Turn

MEGA = 1e6
TRANSFERS = (
    *("read", "readv", "pread64", "preadv", "preadv2", "recvfrom", "recvmsg", "recvmmsg"),
    *("write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg", "sendmmsg"),
    *("sendfile", "splice", "copy_file_range"),
)
"""System calls that move bytes."""
_QUALITY = ("ssim", "colour_difference")
TRACED = (10, 50)
"""The least and the most requests under ``strace``; in between, as many as a round has."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured for a row: a number of rounds, each of about so many CPU seconds of the bare loop.

    If the fewest requests take longer, as eight at once do, there are fewer rounds, but at least ``LEAST``.
    """

    rounds: int
    seconds: float

    LEAST: ClassVar[int] = 5

    def requests(self, once: float, at_once: int = 1, *, each: int = 1) -> int:
        """The number of requests in a round, if one takes ``once`` CPU seconds.

        At least two, a multiple of ``at_once``, and at least ``each`` times that.
        """
        least = max(each, 2 if at_once == 1 else 1)
        return max(least, math.ceil(self.seconds / once / at_once)) * at_once

    def rounds_of(self, seconds: float) -> int:
        """The number of rounds, if each takes ``seconds`` of CPU time."""
        return max(self.LEAST, min(self.rounds, round(self.rounds * self.seconds / seconds)))


@dataclass(frozen=True, slots=True)
class Round:
    """The measurements of one round."""

    bare: Turn | None
    floor: Turn | None
    wall: float
    processes: list[Usage]
    client_cpu: float


class ComparedLoop(Protocol):
    """What a server is compared with: a ``CaseLoop``, or an object that behaves like one."""

    @property
    def processes(self) -> int:
        """How many processes run the rounds."""
        ...

    def run(self, rounds: int, /) -> Turn:
        """Run so many rounds in each process."""
        ...


class Measurement:
    """A server under a load, in turns with a loop.

    ``between`` is called before each round, with the number of requests. ``rounds`` has their measurements.
    """

    def __init__(
        self,
        server: Server,
        load: Load,
        loop: ComparedLoop | None,
        *,
        floor: ComparedLoop | None = None,
        between: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._server = server
        self._load = load
        self._loop = loop
        self._floor = floor
        self._between = between
        self.rounds: list[Round] = []

    def run(
        self, benchmark: BenchmarkFixture, case: Case, scale: Scale, *, at_once: int = 1, each: int = 1
    ) -> dict[str, Any]:
        """Measure the row; fill and return ``benchmark.extra_info``.

        ``at_once`` is the number of requests in flight. ``each`` is the least number of requests a connection
        in a round; set it if throughput by the clock counts. Raises ``Refused`` and ``OSError`` if a request
        fails and ``RuntimeError`` if a worker was replaced.
        """
        pids = self._server.pids
        idle = sum(map(anonymous_bytes, pids))
        with Peak(pids) as peak:
            first = self._load.run(2 * at_once)
        once = min(self._loop.run(1).cpu for _ in range(2)) if self._loop else min(first.seconds)
        requests = scale.requests(once, at_once, each=each)
        seconds: list[float] = []
        bare: Turn | None = None
        floor: Turn | None = None
        before: list[Usage] = []
        began = client = 0.0

        def setup() -> None:
            nonlocal bare, floor, before, began, client
            self._between(requests)
            bare, floor = (_turn(one, requests) for one in (self._loop, self._floor))
            before = [usage(pid) for pid in pids]
            began, client = time.perf_counter(), time.process_time()

        def target() -> Answers:
            return self._load.run(requests)

        def teardown() -> None:
            wall, spent = time.perf_counter() - began, time.process_time() - client
            after = [usage(pid) for pid in pids]
            used = [now - then for now, then in zip(after, before, strict=True)]
            self.rounds.append(Round(bare, floor, wall, used, spent))

        def timed() -> None:
            seconds.extend(target().seconds)

        benchmark.pedantic(timed, setup=setup, teardown=teardown, rounds=scale.rounds_of(requests * once))
        if self._server.pids != pids:
            raise RuntimeError("a worker was replaced, so its measurements are lost")
        row = benchmark.extra_info
        row.update(about(case, first.result))
        row.update(self._times(requests, row["input_bytes"]))
        row.update(
            requests=requests,
            p50_ms=statistics.median(seconds) * 1e3,
            p99_ms=_percentile(seconds, 99) * 1e3,
            idle_anonymous_mb=idle / MEGA,
            peak_anonymous_mb=peak.bytes / MEGA,
        )
        self._trace(row, at_once)
        return row

    def _times(self, requests: int, size: int) -> dict[str, Any]:
        def median(values: list[float]) -> float:
            return statistics.median(values) / requests

        rounds = self.rounds
        gateways = [one.processes[0] for one in rounds]
        workers = [sum(worker.cpu_ns for worker in one.processes[1:]) for one in rounds]
        servers = [gateway.cpu_ns + cpu for gateway, cpu in zip(gateways, workers, strict=True)]
        values = {
            "gateway_cpu_ms": median([gateway.cpu_ns / MEGA for gateway in gateways]),
            "workers_cpu_ms": median([cpu / MEGA for cpu in workers]),
            "server_cpu_ms": median([cpu / MEGA for cpu in servers]),
            "worker_cpu_ms": [
                median([one.processes[number].cpu_ns / MEGA for one in rounds])
                for number in range(1, len(rounds[0].processes))
            ],
            "client_cpu_ms": median([one.client_cpu * 1e3 for one in rounds]),
            "mb_per_second": requests * size / MEGA / statistics.median(one.wall for one in rounds),
            "gateway_waits": median([gateway.waits for gateway in gateways]),
            "gateway_preemptions": median([gateway.preemptions for gateway in gateways]),
            "gateway_reads_writes": median([gateway.reads + gateway.writes for gateway in gateways]),
        }
        walls = [one.wall for one in rounds]
        if self._loop is not None:
            turns = [one.bare for one in rounds if one.bare]
            each = math.ceil(requests / self._loop.processes) * self._loop.processes
            bare = [turn.cpu / each * 1e3 for turn in turns]
            ratios = [cpu / MEGA / requests / loop for cpu, loop in zip(servers, bare, strict=True)]
            parts = [one.cpu_ns / MEGA / requests / loop for one, loop in zip(gateways, bare, strict=True)]
            speeds = [requests / own * turn.wall / each for own, turn in zip(walls, turns, strict=True)]
            values |= {
                "bare_cpu_ms": statistics.median(bare),
                "cpu_over_bare": statistics.median(ratios),
                "cpu_over_bare_rounds": ratios,
                "gateway_over_bare": statistics.median(parts),
                "throughput_over_bare": statistics.median(speeds),
            }
        if self._floor is not None:
            each = math.ceil(requests / self._floor.processes) * self._floor.processes
            floor = [one.floor.cpu / each * 1e3 for one in rounds if one.floor]
            ratios = [cpu / MEGA / requests / least for cpu, least in zip(servers, floor, strict=True)]
            values |= {
                "floor_cpu_ms": statistics.median(floor),
                "cpu_over_floor": statistics.median(ratios),
            }
        return values

    def _trace(self, row: dict[str, Any], at_once: int) -> None:
        least, most = TRACED
        requests = math.ceil(max(least, min(most, row["requests"])) / at_once) * at_once
        try:
            with Calls(self._server.process.pid) as calls:
                self._load.run(requests)
        except CannotTrace as reason:
            for name in ("gateway_syscalls", "gateway_transfers"):
                row[name] = None
                row.setdefault("missing", {})[name] = str(reason)
            return
        row["gateway_syscalls"] = calls.total / requests
        row["gateway_transfers"] = sum(calls.by_name.get(name, 0) for name in TRANSFERS) / requests
        row["gateway_syscalls_by_name"] = {name: count / requests for name, count in calls.by_name.items()}


def about(case: Case, result: bytes) -> dict[str, Any]:
    """Describe a result: sizes, compression ratio and quality."""
    size = case.path.stat().st_size
    row: dict[str, Any] = {
        "input_bytes": size,
        "output_bytes": len(result),
        "compression_ratio": size / len(result),
    }
    try:
        row |= quality(case, result)
    except pyvips.Error as error:
        row |= dict.fromkeys(_QUALITY)
        row["missing"] = dict.fromkeys(_QUALITY, f"libvips alone cannot read the image: {error}")
    return row


def _turn(loop: ComparedLoop | None, requests: int) -> Turn | None:
    return None if loop is None else loop.run(math.ceil(requests / loop.processes))


def _percentile(values: list[float], percent: int) -> float:
    """The least value that at least ``percent`` % of the values do not exceed."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]
