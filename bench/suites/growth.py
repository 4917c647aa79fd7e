"""Measures how the cost of a request grows along one axis: cores, connections, bytes, pixels or results.

A row's ``extra_info`` has the following values:

===================================== ==================================================================
``axis``, ``unit``                    what x counts, and in which unit, such as ``pixels`` and ``MP``
``points``                            a list, of each x: the fields of ``Point``
``growth``                            by cost: ``exponent`` and ``error`` of the power law over all points
                                      (``bench.measuring.power_law``), the ``exponent_at_end`` between the two
                                      largest x, and ``each``, what a further unit of x costs there
``cpu_exponent``, ``memory_exponent`` the exponents of ``cpu_ms`` and ``peak_mb``
``cpu_last_over_first``               the CPU time at the largest x over that at the smallest
``memory_last_over_first``            the same of the peak memory
``others``                            that of the points, as a median
===================================== ==================================================================

The CPU time is user and system time of all processes of the server, of a request; the median of some rounds.
The peak memory is what they hold together, files left out and shared memory counted once (PSS), sampled in a
separate run, because sampling disturbs the server.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from pytest_benchmark.fixture import BenchmarkFixture

from bench.measuring.cores import Cores
from bench.measuring.power_law import fit
from bench.measuring.processes import proportional_bytes
from bench.measuring.sampling import Peak
from bench.measuring.server import Server

MEGA = 1e6
_SAMPLE_SECONDS = 0.01
_LEAST_SAMPLES = 10

COSTS = ("cpu_ms", "gateway_cpu_ms", "workers_cpu_ms", "peak_mb", "requests_per_second")
"""The fields of ``Point`` whose growth is told."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured at a point: ``rounds`` of about ``seconds`` of the server's CPU time each.

    Requests that take more than ``LONG`` seconds of it have ``FEW`` rounds.
    """

    rounds: int
    seconds: float

    LONG: ClassVar[float] = 2.0
    FEW: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class Point:
    """The costs at one x: CPU milliseconds a request, peak memory in 10**6 bytes, requests a second.

    The last is by the clock, and the clients have a part of the cores. ``others`` is the share of the cores'
    time that processes other than the server and its clients had.
    """

    x: float
    cpu_ms: float
    gateway_cpu_ms: float
    workers_cpu_ms: float
    peak_mb: float
    requests_per_second: float
    requests: int
    others: float


Ask = Callable[[int], object]
"""Sends so many requests and receives their replies."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One x of a row: its server, what is asked of it, and the ``least`` number of requests of a round."""

    x: float
    server: Server
    ask: Ask
    least: int = 1


def measure(server: Server, x: float, ask: Ask, effort: Effort, *, least: int = 1) -> Point:
    """Measure the costs at one point; ``least`` is the least number of requests of a round.

    Raises what ``ask`` raises, and ``RuntimeError`` if a worker was replaced.
    """
    (point,) = measure_in_turns([Subject(x, server, ask, least)], effort)
    return point


def measure_in_turns(subjects: Sequence[Subject], effort: Effort) -> list[Point]:
    """Measure the costs at several points, each with a server of its own: a round of each in turn.

    A machine whose speed changes meanwhile then changes all of them alike. Raises as ``measure`` does.
    """
    runs = [_Run(subject, effort) for subject in subjects]
    cores, own = Cores.now(), time.process_time()
    for number in range(max(run.rounds for run in runs)):
        for run in runs:
            if number < run.rounds:
                run.measure_once()
    cores, own = Cores.now() - cores, time.process_time() - own
    used = sum(sum(map(sum, run.used)) for run in runs)
    others = max(0.0, (cores.busy + cores.stolen - own - used) / cores.total)
    return [run.point(others) for run in runs]


class _Run:
    """The rounds of one subject. The constructor warms its server up and samples its memory."""

    def __init__(self, subject: Subject, effort: Effort) -> None:
        server, ask, least = subject.server, subject.ask, subject.least
        ask(least)  # first calls, first pages
        self._pids = server.pids
        idle = sum(server.cpu_seconds())
        ask(least)
        once = sum(server.cpu_seconds()) - idle  # which other processes hardly change
        with Peak(self._pids, _SAMPLE_SECONDS, memory_of=proportional_bytes) as self._peak:
            while self._peak.samples < _LEAST_SAMPLES and self._peak.error is None:
                ask(least)
        self._subject = subject
        self._requests = max(1, math.ceil(effort.seconds / once)) * least
        self.rounds = effort.rounds if once < effort.LONG else effort.FEW
        self.used: list[Sequence[float]] = []
        self._walls: list[float] = []

    def measure_once(self) -> None:
        server = self._subject.server
        before = server.cpu_seconds()
        self._walls.append(_seconds(self._subject.ask, self._requests))
        self.used.append([now - then for now, then in zip(server.cpu_seconds(), before, strict=True)])

    def point(self, others: float) -> Point:
        if self._subject.server.pids != self._pids:
            raise RuntimeError("a worker was replaced, so its measurements are lost")

        def median(values: Sequence[float]) -> float:
            return statistics.median(values) * 1e3 / self._requests

        return Point(
            self._subject.x,
            cpu_ms=median([sum(one) for one in self.used]),
            gateway_cpu_ms=median([one[0] for one in self.used]),
            workers_cpu_ms=median([sum(one[1:]) for one in self.used]),
            peak_mb=self._peak.bytes / MEGA,
            requests_per_second=self._requests / statistics.median(self._walls),
            requests=self._requests * self.rounds,
            others=others,
        )


def _seconds(ask: Ask, requests: int) -> float:
    began = time.perf_counter()
    ask(requests)
    return time.perf_counter() - began


def growth(points: Sequence[Point]) -> dict[str, Mapping[str, float | None]]:
    """How each cost grows over the points, which are in ascending order of x."""
    found: dict[str, Mapping[str, float | None]] = {}
    for name in COSTS:
        x, cost = [point.x for point in points], [getattr(point, name) for point in points]
        law, end = fit(x, cost), fit(x[-2:], cost[-2:])
        found[name] = {
            "exponent": law.exponent,
            "error": law.error,
            "exponent_at_end": end.exponent,
            "each": (cost[-1] - cost[-2]) / (x[-1] - x[-2]),
        }
    return found


def record(
    benchmark: BenchmarkFixture, axis: str, unit: str, points_of: Callable[[], Iterable[Point]]
) -> None:
    """Measure the points of a row once, in ascending order of x; fill ``benchmark.extra_info``."""
    points: list[Point] = benchmark.pedantic(lambda: list(points_of()), rounds=1)
    grown = growth(points)
    first, last = points[0], points[-1]
    row: dict[str, Any] = benchmark.extra_info
    row.update(
        axis=axis,
        unit=unit,
        points=[asdict(point) for point in points],
        growth=grown,
        cpu_exponent=grown["cpu_ms"]["exponent"],
        memory_exponent=grown["peak_mb"]["exponent"],
        cpu_last_over_first=last.cpu_ms / first.cpu_ms,
        memory_last_over_first=last.peak_mb / first.peak_mb,
        others=statistics.median(point.others for point in points),
    )
