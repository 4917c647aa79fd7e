"""One run: the generator processes are started, observed and added up."""

import contextlib
import ctypes
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Self

from bench.load.generator import Counters, Pipe, Start, Tally, work
from bench.load.histogram import Latencies
from bench.load.idle import IdleConnections
from bench.load.plan import Plan
from bench.load.progress import Progress
from bench.load.record import (
    CORRECTED,
    FROM_INTENDED_START,
    NOT_CORRECTED,
    CoresStats,
    GeneratorStats,
    IdleStats,
    ImageStats,
    MemorySample,
    Run,
    ServerStats,
)
from bench.load.schedule import shares
from bench.load.server_monitor import ServerMonitor, cpu_between
from bench.measuring.cores import Cores
from bench.measuring.server import Server

SATURATED = 0.8
"""Share of a core from which on a generator process counts as the bottleneck: it answers late by then."""

LATE = 0.1
LATE_MS = 1.0
"""How late a generator may send: this share of the median latency, or this where that is less."""

_LEAD_SECONDS = 0.1
_TICK_SECONDS = 0.02
_SAMPLE_SECONDS = 0.5
_START_SECONDS = 60.0
_COUNT_MARKS = 20


class LoadFailed(Exception):
    """A run that has no result, and why."""


@dataclass(frozen=True, slots=True)
class Own:
    """The server that was started for the runs, and its arguments."""

    server: Server
    arguments: list[str]


def run(plan: Plan, *, processes: int, idle: int = 0, own: Own | None = None) -> Run:
    """The figures of one run. Raises ``LoadFailed``."""
    with contextlib.ExitStack() as stack:
        held = None
        if idle:
            try:
                held = stack.enter_context(IdleConnections(plan.host, plan.port, idle))
            except OSError as error:
                raise LoadFailed(f"the {idle} idle connections could not be made: {error}") from None
        workers = stack.enter_context(_Processes(plan, processes))
        workers.wait_until_ready()
        monitor = ServerMonitor(own.server) if own else None
        observed = _observe(plan, workers, monitor)
        return _figures(plan, workers.tallies, observed, held.stats() if held else None, own)


class _Processes:
    """The generator processes, ended with the ``with``."""

    def __init__(self, plan: Plan, processes: int) -> None:
        # Fresh ones, so that no thread or socket of the parent is in them.
        context = multiprocessing.get_context("spawn")
        self.counters: Counters = context.RawArray(ctypes.c_ulonglong, 2 * processes)
        self.tallies: list[Tally] = []
        self._processes: list[SpawnProcess] = []
        self._pipes: list[Pipe] = []
        counts = [None] * processes if plan.count is None else shares(plan.count, processes)
        for index, (connections, count) in enumerate(
            zip(shares(plan.connections, processes), counts, strict=True)
        ):
            pipe, far_end = context.Pipe()
            process = context.Process(
                target=work,
                args=(plan, index, processes, connections, count, far_end, self.counters),
                daemon=True,
            )
            process.start()
            far_end.close()
            self._processes.append(process)
            self._pipes.append(pipe)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()

    @property
    def images(self) -> int:
        """Replies with an image so far."""
        return sum(self.counters[::2])

    @property
    def errors(self) -> int:
        """Other replies so far."""
        return sum(self.counters[1::2])

    def wait_until_ready(self) -> None:
        """All have their requests made and, in version 2, their connections."""
        for pipe in self._pipes:
            if not pipe.poll(_START_SECONDS):
                raise LoadFailed(f"a process of the load generator was not ready after {_START_SECONDS:g} s")
            _receive(pipe)

    def begin(self, start: Start) -> None:
        """Tell all when to start."""
        for pipe in self._pipes:
            pipe.send(start)

    def ended(self, seconds: float) -> bool:
        """Wait at most so long for the end of all; gives whether it has come."""
        running = self._pipes[:]
        for ready in wait(running, seconds):
            pipe = next(pipe for pipe in running if pipe is ready)
            tally = _receive(pipe)
            assert isinstance(tally, Tally)
            self.tallies.append(tally)
            self._pipes.remove(pipe)
        return not self._pipes


def _receive(pipe: Pipe) -> object:
    try:
        message: object = pipe.recv()
    except EOFError:
        raise LoadFailed("a process of the load generator died") from None
    if isinstance(message, str) and message != "ready":
        raise LoadFailed(message)
    return message


@dataclass(frozen=True, slots=True)
class _Observed:
    """What was seen of the server and the cores; ``seconds`` is the measured time."""

    seconds: float
    cpu: tuple[float, list[float]] | None
    cores: Cores
    memory: list[MemorySample]


def _observe(plan: Plan, workers: _Processes, monitor: ServerMonitor | None) -> _Observed:
    start = time.monotonic() + _LEAD_SECONDS
    measure_from = start + plan.warmup
    end = None if plan.duration is None else measure_from + plan.duration
    workers.begin(Start(start=start, measure_from=measure_from, end=end))
    loop = f"{plan.rate:g}/s" if plan.rate else f"{plan.connections} connections"
    progress = Progress(loop, duration=plan.duration, count=plan.count)
    memory: list[MemorySample] = []
    marks = _marks(plan.count)
    mark = next(marks)
    next_sample = start
    before: tuple[Cores, dict[int, float]] | None = None
    after: tuple[Cores, dict[int, float]] | None = None
    over = False
    try:
        while not over:
            now = time.monotonic()
            over = workers.ended(min(_TICK_SECONDS, max(0.0, (end or now + 1) - now) or _TICK_SECONDS))
            now = time.monotonic()
            images, errors = workers.images, workers.errors
            progress.show(now - measure_from, images, errors)
            if before is None and (now >= measure_from or over):
                before = Cores.now(), monitor.cpu() if monitor else {}
            if after is None and (over or (end is not None and now >= end)):
                after = Cores.now(), monitor.cpu() if monitor else {}
            replies = images + errors
            if monitor is None:
                continue
            if now >= next_sample or replies >= mark or over:
                memory.append(monitor.memory(max(0.0, now - start), replies))
                next_sample = now + _SAMPLE_SECONDS
                while replies >= mark:
                    mark = next(marks)
    finally:
        progress.end()
    seconds = plan.duration
    if seconds is None:
        seconds = max(tally.last_reply for tally in workers.tallies) - measure_from
        if seconds <= 0:
            raise LoadFailed("nothing was answered in the measured time")
    assert before is not None
    assert after is not None
    cpu = cpu_between(before[1], after[1]) if monitor is not None else None
    return _Observed(seconds, cpu, after[0] - before[0], memory)


def _marks(count: int | None) -> Iterator[float]:
    """Numbers of replies at which memory is sampled, whatever the time: 100, 1,000, and then evenly."""
    yield 100
    yield 1000
    if count is not None:
        yield from (mark for n in range(1, _COUNT_MARKS + 1) if (mark := count * n / _COUNT_MARKS) > 1000)
    while True:
        yield float("inf")


def _figures(
    plan: Plan, tallies: list[Tally], observed: _Observed, idle: IdleStats | None, own: Own | None
) -> Run:
    latency, service, late = Latencies(), Latencies(), Latencies()
    errors: Counter[str] = Counter()
    for tally in tallies:
        latency.add(tally.latency)
        service.add(tally.service)
        late.add(tally.late)
        errors += tally.errors
    images = [_image(plan, index, tallies) for index in range(len(plan.sources))]
    replies = max(1, sum(tally.replies_in_time for tally in tallies))
    busiest = max((t.cpu_seconds / t.cpu_interval for t in tallies if t.cpu_interval > 0), default=0.0)
    server = None
    if own is not None and observed.cpu is not None:
        gateway, workers = observed.cpu
        server = ServerStats(
            arguments=own.arguments,
            gateway_cpu_ms=gateway / replies * 1e3,
            worker_cpu_ms=[seconds / replies * 1e3 for seconds in workers],
            memory=observed.memory,
        )
    if plan.rate is not None:
        omission = FROM_INTENDED_START
    else:
        omission = CORRECTED if plan.expected_interval else NOT_CORRECTED
    of_generator = sum(tally.cpu_seconds for tally in tallies)
    others = None
    if observed.cpu is not None:
        others = observed.cores.busy - observed.cpu[0] - sum(observed.cpu[1]) - of_generator
    late_p99_ms = late.percentile(99) if len(late) else None
    p50_ms = latency.percentile(50) if len(latency) else 0.0
    return Run(
        loop="closed" if plan.rate is None else "open",
        rate=plan.rate,
        protocol=1 if plan.protocol == 1 else 2,
        connections=plan.connections,
        pipeline=plan.pipeline,
        width=plan.width,
        height=plan.height,
        idle=idle,
        warmup_seconds=plan.warmup,
        seconds=observed.seconds,
        replies_per_second=sum(tally.images_in_time for tally in tallies) / observed.seconds,
        sent_mb_per_second=sum(tally.sent_bytes_in_time for tally in tallies) / observed.seconds / 1e6,
        received_mb_per_second=sum(tally.received_bytes_in_time for tally in tallies)
        / observed.seconds
        / 1e6,
        answered=sum(image.answered for image in images),
        errors=dict(sorted(errors.items())),
        coordinated_omission=omission,
        expected_interval_ms=None if plan.expected_interval is None else plan.expected_interval * 1e3,
        latency=latency.summary(),
        service=service.summary(),
        images=images,
        server=server,
        generator=GeneratorStats(
            processes=len(tallies),
            cpu_ms=of_generator / replies * 1e3,
            busiest=busiest,
            saturated=busiest >= SATURATED or (late_p99_ms or 0.0) > max(LATE_MS, LATE * p50_ms),
            late_p99_ms=late_p99_ms,
        ),
        cores=CoresStats(
            cores=len(os.sched_getaffinity(0)),
            # The clocks of cores and processes are not read at the very same moment.
            others=None if others is None else max(0.0, others / observed.cores.total),
            stolen=observed.cores.stolen / observed.cores.total,
        ),
    )


def _image(plan: Plan, index: int, tallies: list[Tally]) -> ImageStats:
    source = plan.sources[index]
    shares_of_it = [tally.images[index] for tally in tallies]
    answered = sum(share.answered for share in shares_of_it)
    return ImageStats(
        name=source.name,
        bytes=source.size,
        weight=source.weight,
        answered=answered,
        failed=sum(share.failed for share in shares_of_it),
        mean_ms=sum(share.seconds for share in shares_of_it) / answered * 1e3 if answered else None,
        mean_result_bytes=sum(share.result_bytes for share in shares_of_it) / answered if answered else None,
    )
