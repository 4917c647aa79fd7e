"""One process of the load: an event loop over bare sockets that does little work per request."""

import contextlib
import ctypes
import select
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import connection as pipes

from bench.load.connection import LaneReply, LoadConnection, ServerGone
from bench.load.histogram import Latencies
from bench.load.plan import Plan, Requests, choices
from bench.load.schedule import Due, Schedule

Pipe = pipes.Connection
"""An end of the pipe between the parent and a generator."""

Counters = ctypes.Array[ctypes.c_ulonglong]
"""Replies so far, in shared memory: for each process the number of results and of errors."""

_BUFFER_SIZE = 1 << 20
_TURN_SECONDS = 0.1
"""The longest time that the loop waits without checking the clock."""


@dataclass(slots=True)
class ImageTally:
    """The outcomes of the measured requests for one image."""

    answered: int = 0
    failed: int = 0
    seconds: float = 0.0
    result_bytes: int = 0


@dataclass(kw_only=True)
class Tally:
    """The measurements of one process; histograms are text (``Latencies.encode``)."""

    latency: str = ""
    service: str = ""
    late: str = ""
    errors: Counter[str] = field(default_factory=Counter)
    images: list[ImageTally] = field(default_factory=list)
    replies_in_time: int = 0
    """Replies of any kind within the measured time; the next three count results only."""
    results_in_time: int = 0
    sent_bytes_in_time: int = 0
    received_bytes_in_time: int = 0
    last_reply: float = 0.0
    cpu_seconds: float = 0.0
    """CPU seconds within the measured time."""
    cpu_interval: float = 0.0
    """The seconds over which ``cpu_seconds`` was measured."""


_NEVER = Due(0.0, measured=False)


@dataclass(slots=True, eq=False)
class _Lane:
    """A place for one request in flight on one of the connections."""

    index: int
    connection: LoadConnection | None
    free_since: float
    source: int = 0
    due: Due = _NEVER
    sent_at: float = 0.0


class Generator:
    """The load of one process, over ``connections`` of the plan's connections.

    ``on_reply`` is called for each reply, with whether it was an error.
    """

    def __init__(
        self,
        plan: Plan,
        connections: int,
        *,
        seed: int = 0,
        on_reply: Callable[[bool], None] = lambda _error: None,
    ) -> None:
        self._plan = plan
        self._requests = Requests(plan)
        self._choices = choices(plan.sources, plan.seed + seed)
        self._on_reply = on_reply
        self._epoll = select.epoll()
        self._buffer = memoryview(bytearray(_BUFFER_SIZE))
        self._connections: dict[int, LoadConnection] = {}
        self._lanes: dict[LoadConnection, list[_Lane]] = {}
        self._idle: deque[_Lane] = deque()
        self._in_flight = 0
        self._latency, self._service, self._late = Latencies(), Latencies(), Latencies()
        self._tally = Tally(images=[ImageTally() for _ in plan.sources])
        self._measure_from = self._measure_to = 0.0
        for _ in range(connections):
            if plan.protocol == 1:
                self._idle.append(_Lane(0, None, 0.0))
            else:
                self._connect([_Lane(index, None, 0.0) for index in range(plan.pipeline)])

    def run(self, schedule: Schedule, measure_from: float, end: float | None) -> Tally:
        """Send requests by the schedule and wait for all replies. Raises ``ServerGone``."""
        self._measure_from, self._measure_to = measure_from, end or float("inf")
        cpu_from: tuple[float, float] | None = None
        cpu_to: tuple[float, float] | None = None
        last_event = time.monotonic()
        while True:
            now = time.monotonic()
            if cpu_from is None and now >= measure_from:
                cpu_from = now, time.process_time()
            if cpu_to is None and now >= self._measure_to:
                cpu_to = now, time.process_time()
            due = self._send_due(schedule)
            if due is None and not self._in_flight:
                break
            if not self._wait(due if self._idle else None):
                if self._in_flight and time.monotonic() - last_event > self._plan.timeout:
                    self._give_up()
                    break
            else:
                last_event = time.monotonic()
        ended = cpu_to or (time.monotonic(), time.process_time())
        tally = self._tally
        if cpu_from is not None:
            tally.cpu_interval, tally.cpu_seconds = ended[0] - cpu_from[0], ended[1] - cpu_from[1]
        tally.latency, tally.service = self._latency.encode(), self._service.encode()
        tally.late = self._late.encode()
        return tally

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._epoll.close()

    def _send_due(self, schedule: Schedule) -> float | None:
        """Send what is due on idle lanes; return when the next request is due, ``None`` for never."""
        while True:
            now = time.monotonic()
            due = schedule.next_due(now)
            if due is None or due > now or not self._idle:
                return due
            lane = self._idle.popleft()
            lane.due = schedule.take(now)
            lane.source = next(self._choices)
            lane.sent_at = now
            if lane.due.measured:
                self._late.record(now - max(lane.due.intended, lane.free_since))
            if lane.connection is None:
                self._connect([lane])
            assert lane.connection is not None
            self._in_flight += 1
            lane.connection.send(lane.index, *self._requests.parts(lane.source, lane.index))

    def _wait(self, until: float | None) -> bool:
        """Wait for sockets, at most until that time; return whether anything happened."""
        if until is None:
            events = self._epoll.poll(_TURN_SECONDS)
        else:
            # epoll waits in whole milliseconds, too coarse for a schedule; select waits in microseconds.
            left = min(max(until - time.monotonic(), 0.0), _TURN_SECONDS)
            if left:
                select.select([self._epoll], [], [], left)
            events = self._epoll.poll(0)
        for number, event in events:
            connection = self._connections[number]
            if event & select.EPOLLOUT:
                connection.writable()
            if event & ~select.EPOLLOUT:
                self._read(connection)
        return bool(events)

    def _read(self, connection: LoadConnection) -> None:
        replies, ended = connection.readable()
        now = time.monotonic()
        lanes = self._lanes[connection]
        for reply in replies:
            self._answered(lanes[reply.lane], reply, now)
        if not ended:
            return
        for index in list(connection.in_flight):
            self._answered(lanes[index], LaneReply(index, 0, "connection_lost"), now)
        del self._lanes[connection]
        del self._connections[connection.fileno()]
        connection.close()
        for lane in lanes:
            lane.connection = None
        if self._plan.protocol != 1:
            for lane in lanes:
                self._idle.remove(lane)
            self._connect(lanes)

    def _connect(self, lanes: list[_Lane]) -> None:
        """Open a new connection for these lanes; in version 2 they become idle."""
        plan = self._plan
        connection = LoadConnection(plan.host, plan.port, plan.protocol, self._epoll, self._buffer)
        self._connections[connection.fileno()] = connection
        self._lanes[connection] = lanes
        for lane in lanes:
            lane.connection = connection
        if plan.protocol != 1:
            self._idle.extend(lanes)

    def _answered(self, lane: _Lane, reply: LaneReply, now: float) -> None:
        tally, due, plan = self._tally, lane.due, self._plan
        self._in_flight -= 1
        lane.free_since = now
        self._idle.append(lane)
        tally.last_reply = now
        in_time = self._measure_from <= now < self._measure_to
        tally.replies_in_time += in_time
        self._on_reply(reply.error is not None)
        if reply.error is not None:
            if due.measured:
                tally.errors[reply.error] += 1
                tally.images[lane.source].failed += 1
            return
        if in_time:
            tally.results_in_time += 1
            tally.sent_bytes_in_time += plan.sources[lane.source].size
            tally.received_bytes_in_time += reply.size
        if due.measured:
            latency, service = now - due.intended, now - lane.sent_at
            if plan.rate is None and plan.expected_interval:
                self._latency.record_corrected(latency, plan.expected_interval)
            else:
                self._latency.record(latency)
            self._service.record(service)
            image = tally.images[lane.source]
            image.answered += 1
            image.seconds += latency
            image.result_bytes += reply.size

    def _give_up(self) -> None:
        for connection, lanes in self._lanes.items():
            for index in connection.in_flight:
                lane = lanes[index]
                if lane.due.measured:
                    self._tally.errors["no_reply"] += 1
                    self._tally.images[lane.source].failed += 1


@dataclass(frozen=True, kw_only=True)
class Start:
    """The parent's message to a generator that is ready, in times of ``time.monotonic``."""

    start: float
    measure_from: float
    end: float | None


def work(
    plan: Plan, index: int, of: int, connections: int, count: int | None, pipe: Pipe, counters: Counters
) -> None:
    """The main function of a generator process.

    Sends ``"ready"``, receives a ``Start`` and sends a ``Tally``, or sends a sentence about what failed.
    """

    def on_reply(error: bool) -> None:  # noqa: FBT001 - a callback of one argument
        counters[2 * index + error] += 1

    with contextlib.ExitStack() as stack:
        try:
            generator = Generator(plan, connections, seed=index, on_reply=on_reply)
            stack.callback(generator.close)
            pipe.send("ready")
            begin: Start = pipe.recv()
            schedule = Schedule(
                start=begin.start,
                measure_from=begin.measure_from,
                end=begin.end,
                count=count,
                rate=plan.rate,
                index=index,
                of=of,
            )
            pipe.send(generator.run(schedule, begin.measure_from, begin.end))
        except (ServerGone, OSError) as error:
            pipe.send(f"a process of the load generator stopped: {error}")
