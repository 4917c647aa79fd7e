"""Live figures of one gateway: what its requests of the last minutes came to, second by second.

``LiveFigures`` follows the requests that end. It only counts, some requests together as the metrics do
(decision 41); percentiles are computed from what it has counted when somebody watches (``live_view``).
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypedDict

from vipsrv.errors import RequestError
from vipsrv.printable import printable
from vipsrv.server.ended_requests import AT_ONCE
from vipsrv.server.logs.request_line import ROUTINE, RequestLine
from vipsrv.server.ops.histogram import Histogram, add, count, pack
from vipsrv.server.timeline import Timeline

KEPT_SECONDS = 300
"""Seconds that are kept."""

WINDOW_SECONDS = 10
"""Seconds over which percentiles are taken: long enough for a calm line, short enough to see a change."""

RECENT_SECONDS = 5
"""Seconds that each snapshot has, so that one that comes late leaves no gap."""

KEPT_ERRORS = 50
"""Failed requests that are kept."""

_LONGEST_MESSAGE = 300  # characters

STAGES = ("receive", "queue", "process", "send", "total")
"""The stages of a request, as in its line in the log."""

OK, LOST = "200 ok", "200 lost"
"""A success, and a success whose reply the client did not take; an error is its status and its code."""

_FAILED = frozenset({500, 502, 504})
"""Statuses of the server's own errors. The others are refusals, and requests that their client gave up."""


def outcome(status: str) -> str:
    """Return what a request with this status was: ``ok``, ``refused`` or ``failed``."""
    if status == OK:
        return "ok"
    return "failed" if int(status.partition(" ")[0]) in _FAILED else "refused"


class SecondCounts(TypedDict):
    """What one second came to: requests by their statuses, bytes, and the histogram of their total times."""

    statuses: dict[str, int]
    bytes_in: int
    bytes_out: int
    total: list[int]


class LiveCounts(TypedDict):
    """The counts of one gateway as JSON.

    ``second`` is the last complete second, of ``time.monotonic``, which all processes of a machine share;
    ``seconds`` ends with it. ``stages`` has the histograms of the last ``WINDOW_SECONDS``.
    """

    second: int
    seconds: list[SecondCounts | None]
    stages: dict[str, list[int]]


class _Second:
    """The requests that ended within one second."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "number",
        "process",
        "queue",
        "receive",
        "send",
        "statuses",
        "total",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.statuses: dict[str, int] = {}
        self.bytes_in = 0
        self.bytes_out = 0
        self.receive: Histogram = {}
        self.queue: Histogram = {}
        self.process: Histogram = {}
        self.send: Histogram = {}
        self.total: Histogram = {}

    def forget_stages(self) -> None:
        """Keep only what charts of the past show."""
        self.receive = self.queue = self.process = self.send = {}


class LiveFigures:
    """Counts the requests of the last minutes, and keeps the last errors.

    ``clock`` is ``time.monotonic``, and ``wall_clock`` is ``time.time``, except in tests.
    """

    follows_successes = True

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._seconds: deque[_Second] = deque()  # those in which a request ended
        self._detailed: deque[_Second] = deque()  # those of them that have the histograms of all stages
        self._last = _Second(-1)
        self._lines: list[RequestLine] = []  # not counted yet; they ended in the same second
        self._second_of_lines = -1
        self._errors: deque[dict[str, Any]] = deque(maxlen=KEPT_ERRORS)
        self._errors_seen = 0

    def log(self, line: RequestLine) -> None:
        """Count a request that has ended: with the next ones, or when somebody asks."""
        error = line.error
        if error is None and line.kind in ROUTINE:
            return
        second = int(self._clock())
        lines = self._lines
        if second != self._second_of_lines or len(lines) >= AT_ONCE:
            self._count_all()
            self._second_of_lines = second
        lines.append(line)
        if error is not None:
            self._keep_error(line, error)

    def _count_all(self) -> None:
        lines = self._lines
        if not lines:
            return
        second = self._last
        if second.number != self._second_of_lines:
            second = self._begin(self._second_of_lines)
        for line in lines:
            _count(second, line)
        lines.clear()

    def recent(self) -> LiveCounts:
        """Return the counts of the last seconds, and the histograms of all stages."""
        return self._counts(RECENT_SECONDS + WINDOW_SECONDS - 1)

    def history(self) -> LiveCounts:
        """Return the counts of all seconds that are kept."""
        return self._counts(KEPT_SECONDS)

    def statuses(self) -> dict[str, int]:
        """Return how many requests of the kept seconds had each status."""
        self._count_all()
        statuses: dict[str, int] = {}
        oldest = int(self._clock()) - KEPT_SECONDS
        for second in self._seconds:
            if second.number >= oldest:
                add_counts(statuses, second.statuses)
        return statuses

    def errors(self) -> dict[str, Any]:
        """Return the last errors, the newest first, and how many there were since the start."""
        return {"seen": self._errors_seen, "last": list(reversed(self._errors))}

    def _begin(self, number: int) -> _Second:
        """Begin a second, and forget what is too old."""
        seconds = self._seconds
        self._last = second = _Second(number)
        seconds.append(second)
        while seconds[0].number < number - KEPT_SECONDS:
            seconds.popleft()
        detailed = self._detailed
        detailed.append(second)
        while detailed[0].number < number - WINDOW_SECONDS:
            detailed.popleft().forget_stages()
        return second

    def _counts(self, length: int) -> LiveCounts:
        self._count_all()
        last = int(self._clock()) - 1
        found: list[SecondCounts | None] = [None] * length
        stages: dict[str, Histogram] = {stage: {} for stage in STAGES}
        for second in self._seconds:
            place = length - 1 - (last - second.number)
            if not 0 <= place < length:
                continue
            found[place] = SecondCounts(
                statuses=second.statuses,
                bytes_in=second.bytes_in,
                bytes_out=second.bytes_out,
                total=pack(second.total),
            )
            if second.number > last - WINDOW_SECONDS:
                for stage, histogram in stages.items():
                    add(histogram, getattr(second, stage))
        packed = {stage: pack(histogram) for stage, histogram in stages.items()}
        return LiveCounts(second=last, seconds=found, stages=packed)

    def _keep_error(self, line: RequestLine, error: RequestError) -> None:
        """Keep what identifies the line in the log; nothing says who the client is."""
        self._errors_seen += 1
        source = line.source
        self._errors.append(
            {
                "time": round(self._wall_clock(), 3),
                "status": error.status,
                "code": error.code,
                "outcome": outcome(f"{error.status} {error.code}"),
                "message": printable(error.message[:_LONGEST_MESSAGE]),
                "kind": line.kind,
                "connection": line.connection,
                "id": line.request_id,
                "bytes": line.image_size,
                "source": None if source is None else f"{source.format} {source.width} × {source.height}",
                "worker": line.worker,
            }
        )


def _count(second: _Second, line: RequestLine) -> None:
    error, timeline = line.error, line.timeline
    if error is not None:
        status = f"{error.status} {error.code}"
    else:
        status = OK if line.lost is None else LOST
        if line.outputs:
            second.bytes_in += line.image_size
            for output in line.outputs:
                second.bytes_out += output.size
    second.statuses[status] = second.statuses.get(status, 0) + 1
    if timeline is not None and timeline.started:  # what is refused at once says nothing about times
        _count_stages(second, timeline, line.sent)


def _count_stages(second: _Second, timeline: Timeline, sent: float) -> None:
    arrived, received, started = timeline.arrived, timeline.received, timeline.started
    count(second.receive, received - arrived)
    count(second.queue, started - received)
    if timeline.ended:
        count(second.process, timeline.ended - started)
    if sent:
        count(second.send, sent - timeline.replied)
        count(second.total, sent - arrived)


def add_counts(total: dict[str, int], more: dict[str, int]) -> None:
    """Add the counts of ``more`` to those of ``total``."""
    for name, number in more.items():
        total[name] = total.get(name, 0) + number
