"""Counts the requests that have ended: by what they were, how many bytes they had, how long each stage took.

It follows ``context.ended_requests``, so each request is counted once, when its reply has been sent or is
lost. That is in the event loop for every request. So one look-up finds all that a request adds to, and some
requests are counted together: between other work the caches of the processor are cold, and each would take
several times as long (decision 41).
"""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from vipsrv.errors import DeadlineExceeded, Limit, ReceiveTimeout, RequestError, TooLarge
from vipsrv.server.ended_requests import AT_ONCE
from vipsrv.server.identity.identity import FORMATS
from vipsrv.server.logs.request_line import RequestLine
from vipsrv.server.metrics import catalogue
from vipsrv.server.metrics.catalogue import NONE, RATIOS, SECONDS, Stage
from vipsrv.server.metrics.snapshot import Figures, Histogram
from vipsrv.server.timeline import Timeline

_OK = 200

_KINDS = frozenset({"resize", "info", "hello", "ping", "cancel", "upload_status", "upload", "page"})
"""The kinds of requests that are counted by name. The others are ``other``: unknown ones, and those of HTTP
that were refused before it was known what they ask for.
"""

_OTHER = "other"
_SEVERAL = "several"

_MOST_KEYS = 10_000
"""How many kinds of requests are found by one look-up. A client that sends all kinds that there are makes
some ten thousand; the label sets that they have in common are at most a few thousand."""

_LIMITS: dict[type[RequestError], Limit] = {
    TooLarge: Limit.IMAGE,
    DeadlineExceeded: Limit.DEADLINE,
    ReceiveTimeout: Limit.RECEIVE_TIMEOUT,
}
"""The limit that an error is about if it does not say so itself, as those of a worker."""


@dataclass(slots=True)
class _Stages:
    """The histograms of requests with an image, of one kind."""

    receive: Histogram = field(default_factory=lambda: Histogram.of(SECONDS))
    queue: Histogram = field(default_factory=lambda: Histogram.of(SECONDS))
    process: Histogram = field(default_factory=lambda: Histogram.of(SECONDS))
    send: Histogram = field(default_factory=lambda: Histogram.of(SECONDS))
    total: Histogram = field(default_factory=lambda: Histogram.of(SECONDS))


@dataclass(slots=True)
class _Cell:
    """What requests with the same labels add to."""

    labels: tuple[str, ...]
    stages: _Stages
    requests: int = 0
    upload_bytes: int = 0
    result_bytes: int = 0


class RequestCounts:
    """The counters and histograms of requests: a follower of all that have ended."""

    follows_successes = True

    def __init__(self) -> None:
        self._lines: list[RequestLine] = []  # not counted yet
        self._cells: dict[tuple[str, ...], _Cell] = {}
        self._found: dict[tuple[object, ...], _Cell] = {}  # by the values of a line that decide its labels
        self._stages: dict[str, _Stages] = {}
        self._ratio = Histogram.of(RATIOS)
        self._results: Counter[str] = Counter()
        self._lost: Counter[int] = Counter()
        # From 0 on, so that a rate sees the first one.
        self._limits: Counter[Limit] = Counter(dict.fromkeys(Limit, 0))

    def log(self, line: RequestLine) -> None:
        """Count a request that has ended: with the next ones, or when somebody asks."""
        lines = self._lines
        lines.append(line)
        if len(lines) >= AT_ONCE:
            self._count_all()

    def _count_all(self) -> None:
        for line in self._lines:
            self._count(line)
        self._lines.clear()

    def _count(self, line: RequestLine) -> None:
        error, source, outputs = line.error, line.source, line.outputs
        format_in = None if source is None else source.format
        format_out: object = None
        if outputs:
            # A tuple of them finds its cell as well as a name would.
            format_out = outputs[0].format if len(outputs) == 1 else tuple([one.format for one in outputs])
        status = line.http_status or (_OK if error is None else error.status)
        key = (
            line.kind,
            status,
            line.version,
            line.http,
            line.tls,
            line.identity is None,
            line.certified,
            format_in,
            format_out,
        )
        cell = self._found.get(key)
        if cell is None:
            cell = self._find(key, line)
        cell.requests += 1
        if error is not None:
            limit = error.limit or _LIMITS.get(type(error))
            if limit is not None:
                self._limits[limit] += 1
        if line.lost is not None:
            self._lost[status] += 1
        timeline = line.timeline
        if timeline is not None and timeline.received:  # or it was refused or given up before
            cell.upload_bytes += line.image_size
            _count_stages(cell.stages, timeline, line.sent)
            if outputs and error is None:
                self._count_results(cell, line)

    def _count_results(self, cell: _Cell, line: RequestLine) -> None:
        results = self._results
        size = 0
        for one in line.outputs:
            size += one.size
            results[one.format] += 1
        if line.lost is None:
            cell.result_bytes += size
        ratio = line.image_size / size if size else 0.0
        histogram = self._ratio
        histogram.counts[bisect_left(RATIOS, ratio)] += 1
        histogram.sum += ratio

    def _find(self, key: tuple[object, ...], line: RequestLine) -> _Cell:
        """Return the cell for the labels of a line, and find it by ``key`` from now on."""
        kind = line.kind if line.kind in _KINDS else _OTHER
        formats = {_format(one.format) for one in line.outputs}
        labels = (
            kind,
            str(line.status),
            line.protocol or NONE,
            NONE if line.identity is None else "certificate" if line.certified else "token",
            NONE if line.source is None else _format(line.source.format),
            NONE if not formats else formats.pop() if len(formats) == 1 else _SEVERAL,
        )
        cell = self._cells.get(labels)
        if cell is None:
            stages = self._stages.setdefault(kind, _Stages())
            cell = self._cells[labels] = _Cell(labels, stages)
        if len(self._found) < _MOST_KEYS:
            self._found[key] = cell
        return cell

    def add_to(self, figures: Figures) -> None:
        """Add what was counted."""
        self._count_all()
        for labels, cell in self._cells.items():
            _, _, protocol, _, format_in, format_out = labels
            figures.add(catalogue.REQUESTS, cell.requests, *labels)
            if cell.upload_bytes:
                figures.add(catalogue.UPLOAD_BYTES, cell.upload_bytes, protocol, format_in)
            if cell.result_bytes:
                figures.add(catalogue.RESULT_BYTES, cell.result_bytes, protocol, format_out)
        for name, count in self._results.items():
            figures.add(catalogue.RESULTS, count, _format(name))
        for status, count in self._lost.items():
            figures.add(catalogue.REQUESTS_LOST, count, str(status))
        for limit, count in self._limits.items():
            figures.add(catalogue.LIMITS_HIT, count, limit)
        for kind, stages in self._stages.items():
            if stages.total.count:
                figures.add(catalogue.REQUEST_SECONDS, stages.total.copy(), kind)
                for stage in Stage:
                    histogram: Histogram = getattr(stages, stage)
                    figures.add(catalogue.STAGE_SECONDS, histogram.copy(), stage, kind)
        figures.add(catalogue.COMPRESSION_RATIO, self._ratio.copy())


def _count_stages(stages: _Stages, timeline: Timeline, sent: float) -> None:
    """Count how long each stage took that has ended."""
    # Written out, because calls of a method would take twice as long.
    arrived, received, started, replied = (
        timeline.arrived,
        timeline.received,
        timeline.started,
        timeline.replied,
    )
    seconds = received - arrived
    histogram = stages.receive
    histogram.counts[bisect_left(SECONDS, seconds)] += 1
    histogram.sum += seconds
    if started:
        seconds = started - received
        histogram = stages.queue
        histogram.counts[bisect_left(SECONDS, seconds)] += 1
        histogram.sum += seconds
        ended = timeline.ended
        if ended:
            seconds = ended - started
            histogram = stages.process
            histogram.counts[bisect_left(SECONDS, seconds)] += 1
            histogram.sum += seconds
    if sent:
        seconds = sent - replied
        histogram = stages.send
        histogram.counts[bisect_left(SECONDS, seconds)] += 1
        histogram.sum += seconds
    seconds = (sent or replied) - arrived
    histogram = stages.total
    histogram.counts[bisect_left(SECONDS, seconds)] += 1
    histogram.sum += seconds


def _format(name: str) -> str:
    """Return the name of a format if it is known: a worker tells it, which an image may have taken over."""
    return name if name in FORMATS else _OTHER
