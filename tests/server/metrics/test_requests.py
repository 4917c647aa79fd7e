"""What each request that has ended adds to the counters and histograms."""

import pytest

from tests.server.logs.lines import full_line, request_line
from vipsrv.errors import (
    BadRequest,
    Busy,
    Cancelled,
    DeadlineExceeded,
    Limit,
    ReceiveTimeout,
    RequestError,
    TooLarge,
)
from vipsrv.options import ImageInfo, OutputInfo
from vipsrv.server.ended_requests import AT_ONCE
from vipsrv.server.http.refusals import NotFound
from vipsrv.server.logs.request_line import RequestLine
from vipsrv.server.metrics import catalogue
from vipsrv.server.metrics.catalogue import METRICS, SECONDS, Metric
from vipsrv.server.metrics.requests import RequestCounts
from vipsrv.server.metrics.snapshot import Figures, Histogram, Value
from vipsrv.server.timeline import Timeline


def counted(*lines: RequestLine) -> Figures:
    counts, figures = RequestCounts(), Figures()
    for line in lines:
        counts.log(line)
    counts.add_to(figures)
    return figures


def requests(figures: Figures) -> dict[tuple[str, ...], Value]:
    return figures.values["vipsrv_requests_total"]


def source(name: str = "jpeg") -> ImageInfo:
    return ImageInfo(format=name, width=9, height=9, pages=1, has_alpha=False, orientation=1, size=1000)


def output(name: str, size: int) -> OutputInfo:
    return OutputInfo(width=9, height=9, format=name, quality=85, size=size)


def success(*outputs: OutputInfo, kind: str = "resize", lost: str | None = None) -> RequestLine:
    """A request with an image of 1,000 bytes, 1 s receiving, 2 s queueing, 4 s processing, 8 s sending."""
    line = request_line(kind=kind)
    line.image_size = 1000
    line.timeline = Timeline(arrived=100, received=101, submitted=101, started=103, ended=107, replied=107)
    line.source, line.outputs, line.lost = source(), outputs, lost
    line.sent = 0.0 if lost else 115
    return line


def failure(error: RequestError) -> RequestLine:
    line = request_line(kind="resize")
    line.error = error
    return line


def test_requests_are_counted_by_what_they_are() -> None:
    ping, old = request_line(kind="ping"), request_line(kind="resize")
    old.version, old.error = 1, Busy("full")
    encrypted = request_line(kind="info")
    encrypted.tls, encrypted.identity = True, "somebody"
    shown = request_line(kind="info")
    shown.tls, shown.identity, shown.certified = True, "somebody", True
    unknown = request_line(kind="kind 77")
    unknown.version, unknown.error = None, BadRequest("what")

    page, refused = request_line(kind="page"), request_line(kind="request")
    for line in (page, refused):
        line.version, line.http = None, True
    page.http_status, refused.error, refused.tls = 304, NotFound("nothing here"), True

    assert requests(counted(ping, ping, old, encrypted, shown, unknown, page, refused)) == {
        ("ping", "200", "v2", "none", "none", "none"): 2,
        ("resize", "429", "v1", "none", "none", "none"): 1,
        ("info", "200", "v2+tls", "token", "none", "none"): 1,
        ("info", "200", "v2+tls", "certificate", "none", "none"): 1,
        ("other", "400", "none", "none", "none", "none"): 1,
        ("page", "304", "http", "none", "none", "none"): 1,
        ("other", "404", "http+tls", "none", "none", "none"): 1,
    }


def test_the_formats_of_image_and_results() -> None:
    figures = counted(
        success(output("webp", 100)),
        success(output("webp", 100), output("webp", 50)),
        success(output("webp", 100), output("avif", 20)),
        success(kind="info"),
    )

    assert requests(figures) == {
        ("resize", "200", "v2", "none", "jpeg", "webp"): 2,
        ("resize", "200", "v2", "none", "jpeg", "several"): 1,
        ("info", "200", "v2", "none", "jpeg", "none"): 1,
    }
    assert figures.values["vipsrv_results_total"] == {("webp",): 4, ("avif",): 1}
    assert figures.values["vipsrv_upload_bytes_total"] == {("v2", "jpeg"): 4000}
    assert figures.values["vipsrv_result_bytes_total"] == {("v2", "webp"): 250, ("v2", "several"): 120}


def test_a_format_that_no_worker_knows_has_no_name_of_its_own() -> None:
    line = success(output("jpeg", 1))
    line.source = source("made-up-by-an-attacker")
    assert list(requests(counted(line))) == [("resize", "200", "v2", "none", "other", "jpeg")]


def test_a_worker_that_makes_names_up_does_not_use_up_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vipsrv.server.metrics.requests._MOST_KEYS", 10)
    counts, figures = RequestCounts(), Figures()
    for number in range(100):
        line = success(output("jpeg", 1))
        line.source = source(f"name-{number}")
        counts.log(line)
    counts.add_to(figures)
    assert len(counts._found) == 10
    assert not counts._lines
    assert requests(figures) == {("resize", "200", "v2", "none", "other", "jpeg"): 100}


def test_the_stages_of_a_request() -> None:
    figures = counted(success(output("jpeg", 10)))

    def only(seconds: float) -> Histogram:
        counts = [int(bound == seconds) for bound in (*SECONDS, 0.0)]
        return Histogram(counts, {2.5: 2.0, 5.0: 4.0, 10.0: 8.0, 30.0: 15.0}.get(seconds, seconds))

    assert figures.values["vipsrv_stage_seconds"] == {
        ("receive", "resize"): only(1.0),
        ("queue", "resize"): only(2.5),
        ("process", "resize"): only(5.0),
        ("send", "resize"): only(10.0),
    }
    assert figures.values["vipsrv_request_seconds"] == {("resize",): only(30.0)}


def test_a_value_at_a_bound_is_in_its_bucket_and_one_above_all_in_the_last() -> None:
    line = success(output("jpeg", 10))
    assert line.timeline is not None
    line.timeline.received = 100.25
    line.timeline.started = 190
    figures = counted(line)
    received = figures.get(catalogue.STAGE_SECONDS, "receive", "resize")
    queued = figures.get(catalogue.STAGE_SECONDS, "queue", "resize")
    assert isinstance(received, Histogram)
    assert isinstance(queued, Histogram)
    assert received.counts[SECONDS.index(0.25)] == 1
    assert queued.counts[-1] == 1


def test_a_lost_reply_is_counted_and_its_bytes_are_not() -> None:
    figures = counted(success(output("jpeg", 10), lost="the client disconnected"))
    assert requests(figures) == {("resize", "200", "v2", "none", "jpeg", "jpeg"): 1}
    assert figures.values["vipsrv_requests_lost_total"] == {("200",): 1}
    assert figures.get(catalogue.RESULTS, "jpeg") == 1
    assert "vipsrv_result_bytes_total" not in figures.values
    sent = figures.get(catalogue.STAGE_SECONDS, "send", "resize")
    total = figures.get(catalogue.REQUEST_SECONDS, "resize")
    assert isinstance(sent, Histogram)
    assert isinstance(total, Histogram)
    assert (sent.count, total.count, total.sum) == (0, 1, 7.0)


def test_a_request_that_its_client_gives_up_before_the_image_has_arrived() -> None:
    line = request_line(kind="resize")
    line.image_size, line.timeline = 1000, Timeline(arrived=100, replied=105)
    line.error, line.lost = Cancelled("gone"), "the client disconnected"
    figures = counted(line)
    assert requests(figures) == {("resize", "499", "v2", "none", "none", "none"): 1}
    assert figures.values["vipsrv_requests_lost_total"] == {("499",): 1}
    assert "vipsrv_upload_bytes_total" not in figures.values
    assert "vipsrv_request_seconds" not in figures.values


def test_the_compression_ratio_is_that_of_all_results_together() -> None:
    figures = counted(success(output("jpeg", 15), output("webp", 5)), success(kind="info"))
    assert figures.get(catalogue.COMPRESSION_RATIO) == Histogram([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], 50.0)


@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (Busy("full", limit=Limit.QUEUE), Limit.QUEUE),
        (TooLarge("too long", limit=Limit.MAX_UPLOAD), Limit.MAX_UPLOAD),
        (TooLarge("as a worker says"), Limit.IMAGE),
        (DeadlineExceeded("late"), Limit.DEADLINE),
        (ReceiveTimeout("stalled"), Limit.RECEIVE_TIMEOUT),
        (ReceiveTimeout("slow", limit=Limit.MIN_RATE), Limit.MIN_RATE),
        (BadRequest("no limit"), None),
    ],
)
def test_the_limit_that_an_error_is_about(error: RequestError, limit: Limit | None) -> None:
    hit = counted(failure(error)).values["vipsrv_limits_hit_total"]
    assert set(hit) == {(one.value,) for one in Limit}, "all from 0 on, so that a rate sees the first one"
    assert {labels: value for labels, value in hit.items() if value} == ({(limit,): 1} if limit else {})


def test_a_histogram_that_was_taken_does_not_change() -> None:
    counts, before, after = RequestCounts(), Figures(), Figures()
    counts.log(success(output("jpeg", 10)))
    counts.add_to(before)
    counts.log(success(output("jpeg", 10)))
    counts.add_to(after)
    for figures, count in ((before, 1), (after, 2)):
        total = figures.get(catalogue.REQUEST_SECONDS, "resize")
        assert isinstance(total, Histogram)
        assert total.count == count


def test_no_more_lines_wait_than_are_counted_together() -> None:
    counts = RequestCounts()
    for _ in range(3 * AT_ONCE + 1):
        counts.log(request_line())
        assert len(counts._lines) < AT_ONCE
    figures = Figures()
    counts.add_to(figures)
    assert list(requests(figures).values()) == [3 * AT_ONCE + 1]


def test_every_value_has_the_labels_of_its_metric() -> None:
    figures = counted(full_line(), success(output("jpeg", 10)), success(output("jpeg", 10), lost="gone"))
    for name, values in figures.values.items():
        metric: Metric = METRICS[name]
        assert {len(labels) for labels in values} == {len(metric.labels)}
