"""One run of a load: starts the generator processes, observes the server and waits for the end."""

import contextlib
import ctypes
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Self

from bench.load.generator import Counters, Pipe, Start, Tally, work
from bench.load.idle import IdleConnections
from bench.load.plan import Plan
from bench.load.progress import Progress
from bench.load.record import (
    MemorySample,
    Run,
)
from bench.load.schedule import shares
from bench.load.server_monitor import ServerMonitor, cpu_between
from bench.load.summary import Observed, StartedServer, summarise
from bench.measuring.cores import Cores

_LEAD_SECONDS = 0.1
_TICK_SECONDS = 0.02
_SAMPLE_SECONDS = 0.5
_START_SECONDS = 60.0
_COUNT_MARKS = 20


class LoadFailed(Exception):
    """A run has no result; the message says why."""


def run(plan: Plan, *, processes: int, idle: int = 0, own: StartedServer | None = None) -> Run:
    """Carry out one run. Raises ``LoadFailed``."""
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
        return summarise(plan, workers.tallies, observed, held.stats() if held else None, own)


class _Processes:
    """The generator processes, which are ended after the ``with``."""

    def __init__(self, plan: Plan, processes: int) -> None:
        # Spawned, so that they inherit no thread or socket of the parent.
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
        """Replies with a result so far."""
        return sum(self.counters[::2])

    @property
    def errors(self) -> int:
        """Error replies so far."""
        return sum(self.counters[1::2])

    def wait_until_ready(self) -> None:
        """Wait until all have built their requests and, in version 2, have connected."""
        for pipe in self._pipes:
            if not pipe.poll(_START_SECONDS):
                raise LoadFailed(f"a process of the load generator was not ready after {_START_SECONDS:g} s")
            _receive(pipe)

    def begin(self, start: Start) -> None:
        """Tell all processes when to start."""
        for pipe in self._pipes:
            pipe.send(start)

    def ended(self, seconds: float) -> bool:
        """Wait at most so many seconds; return whether all processes have ended."""
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


def _observe(plan: Plan, workers: _Processes, monitor: ServerMonitor | None) -> Observed:
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
            raise LoadFailed("no request was answered in the measured time")
    assert before is not None
    assert after is not None
    cpu = cpu_between(before[1], after[1]) if monitor is not None else None
    return Observed(seconds, cpu, after[0] - before[0], memory)


def _marks(count: int | None) -> Iterator[float]:
    """The numbers of replies at which memory is sampled: 100, 1,000, and then evenly up to the count."""
    yield 100
    yield 1000
    if count is not None:
        yield from (mark for n in range(1, _COUNT_MARKS + 1) if (mark := count * n / _COUNT_MARKS) > 1000)
    while True:
        yield float("inf")
