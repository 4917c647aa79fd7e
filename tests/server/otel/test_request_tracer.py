"""Spans of requests, from the line of a request to what a receiver of OTLP gets."""

import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace.export import SpanExporter

from tests.support.otlp_receiver import OtlpReceiver, values_of
from vipsrv.errors import CorruptImage, DeadlineExceeded, RequestError
from vipsrv.options import ImageInfo, OutputInfo
from vipsrv.server.logs.request_line import RequestLine
from vipsrv.server.otel.environment import OtelEnvironment, resource_of
from vipsrv.server.otel.request_tracer import RequestTracer
from vipsrv.server.request_ids import NO_IDS, RequestIds
from vipsrv.server.timeline import Timeline

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
SOURCE = ImageInfo(
    format="jpeg", width=4000, height=3000, pages=1, has_alpha=False, orientation=1, size=1_000_000
)
RESULTS = (
    OutputInfo(width=800, height=600, format="webp", quality=80, size=40_000),
    OutputInfo(width=400, height=300, format="webp", quality=80, size=10_000),
)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        yield receiver


def tracer_of(*, exporter: SpanExporter | None = None, queue: int = 100, batch: int = 100) -> RequestTracer:
    environment = OtelEnvironment(traces=True, metrics=False, queue=queue, batch=batch, delay_ms=60_000)
    return RequestTracer(environment, resource_of(None), exporter)


def line_of(
    *,
    error: RequestError | None = None,
    ids: RequestIds = NO_IDS,
    lost: str | None = None,
    peer: object = ("192.0.2.7", 4711),
    http: bool = False,
) -> RequestLine:
    now = time.monotonic()
    ready = error is None
    return RequestLine(
        connection=3,
        peer=peer,
        identity="shop",
        version=None if http else 2,
        tls=True,
        http=http,
        kind="resize",
        request_id=9,
        image_size=1_000_000,
        error=error,
        ids=ids,
        timeline=Timeline(
            arrived=now - 0.5,
            received=now - 0.4,
            submitted=now - 0.3,
            started=now - 0.2 if ready else 0.0,
            ended=now - 0.1 if ready else 0.0,
            replied=now - 0.05,
        ),
        source=SOURCE if ready else None,
        outputs=RESULTS if ready else (),
        worker=77 if ready else 0,
        sent=0.0 if lost else now,
        lost=lost,
    )


def exported(receiver: OtlpReceiver, *lines: RequestLine) -> list[Span]:
    tracer = tracer_of()
    for line in lines:
        tracer.log(line)
    tracer.close(10)
    assert tracer.exported == len(receiver.spans)
    return receiver.spans


def test_a_success_has_its_stages_and_all_that_is_known(receiver: OtlpReceiver) -> None:
    before = time.time_ns()
    (span,) = exported(receiver, line_of())
    assert (span.name, span.kind) == ("resize", Span.SpanKind.SPAN_KIND_SERVER)
    assert not span.parent_span_id
    assert span.status.code == Status.StatusCode.STATUS_CODE_UNSET
    assert [event.name for event in span.events] == ["received", "queued", "started", "ended", "sent"]
    times = [span.start_time_unix_nano, *(event.time_unix_nano for event in span.events)]
    steps = [round((later - earlier) / 1e9, 3) for earlier, later in pairwise(times)]
    assert steps == [0.1, 0.1, 0.1, 0.1, 0.1]
    assert times[-1] == span.end_time_unix_nano
    assert abs(span.end_time_unix_nano - before) < 10e9
    assert values_of(span.attributes) == {
        "network.protocol.name": "vipsrv",
        "network.protocol.version": "2",
        "network.transport": "tcp",
        "client.address": "192.0.2.7",
        "client.port": 4711,
        "enduser.id": "shop",
        "tls.established": True,
        "vipsrv.kind": "resize",
        "vipsrv.status": 200,
        "vipsrv.connection": 3,
        "vipsrv.source.bytes": 1_000_000,
        "vipsrv.source.format": "jpeg",
        "vipsrv.source.width": 4000,
        "vipsrv.source.height": 3000,
        "vipsrv.result.formats": ["webp", "webp"],
        "vipsrv.result.widths": [800, 400],
        "vipsrv.result.heights": [600, 300],
        "vipsrv.result.bytes": 50_000,
        "vipsrv.ratio": 20.0,
        "vipsrv.worker.pid": 77,
    }


def test_a_request_of_http_has_what_the_conventions_name(receiver: OtlpReceiver) -> None:
    (span,) = exported(receiver, line_of(http=True, error=CorruptImage("cut off")))
    assert span.name == "POST /resize"
    values = values_of(span.attributes)
    assert {
        name: values[name] for name in values if name.startswith(("http.", "url.", "network.", "error"))
    } == {
        "network.protocol.name": "http",
        "network.transport": "tcp",
        "http.request.method": "POST",
        "http.route": "/resize",
        "http.request.body.size": 1_000_000,
        "http.response.status_code": 422,
        "url.path": "/resize",
        "url.scheme": "https",
        "error.type": "corrupt_image",
    }
    assert "vipsrv.status" not in values


def test_the_resource_names_server_version_and_instance(receiver: OtlpReceiver) -> None:
    exported(receiver, line_of())
    resource = values_of(receiver.resource_spans[0].resource.attributes)
    assert resource["service.name"] == "vipsrv"
    assert {"service.version", "service.instance.id", "host.name", "process.pid"} <= resource.keys()


def test_the_client_names_the_parent(receiver: OtlpReceiver) -> None:
    (span,) = exported(receiver, line_of(ids=RequestIds("order 7", SAMPLED, "vendor=a1,other=b2")))
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.trace_state == "vendor=a1,other=b2"
    assert values_of(span.attributes)["vipsrv.request_id"] == "order 7"


def test_a_parent_that_is_not_sampled_makes_no_span(receiver: OtlpReceiver) -> None:
    lines = [line_of(ids=RequestIds(None, NOT_SAMPLED)), line_of(ids=RequestIds(None, SAMPLED))]
    (span,) = exported(receiver, *lines)
    assert span.trace_id.hex() == TRACE


def test_the_variable_chooses_the_sampler(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    (span,) = exported(receiver, line_of(), line_of(ids=RequestIds(None, SAMPLED)))
    assert span.trace_id.hex() == TRACE


def test_a_fault_of_the_server_is_an_error(receiver: OtlpReceiver) -> None:
    (span,) = exported(receiver, line_of(error=DeadlineExceeded("it waited too long")))
    assert span.status.code == Status.StatusCode.STATUS_CODE_ERROR
    assert span.status.message == "deadline_exceeded: it waited too long"
    values = values_of(span.attributes)
    assert (values["error.type"], values["vipsrv.status"]) == ("deadline_exceeded", 504)
    assert [event.name for event in span.events] == ["received", "queued", "sent"]


def test_a_fault_of_the_client_has_its_type_but_no_error_status(receiver: OtlpReceiver) -> None:
    (span,) = exported(receiver, line_of(error=CorruptImage("cut\noff")))
    assert span.status.code == Status.StatusCode.STATUS_CODE_UNSET
    values = values_of(span.attributes)
    assert (values["error.type"], values["vipsrv.error.message"]) == ("corrupt_image", "cut\\noff")


def test_a_reply_that_is_lost_is_an_error(receiver: OtlpReceiver) -> None:
    (span,) = exported(receiver, line_of(lost="the client has disconnected"))
    assert span.status.code == Status.StatusCode.STATUS_CODE_ERROR
    assert values_of(span.attributes)["error.type"] == "lost"
    assert span.end_time_unix_nano > span.events[-1].time_unix_nano


def test_a_client_of_a_unix_socket_has_no_address(receiver: OtlpReceiver) -> None:
    (span,) = exported(receiver, line_of(peer=""))
    values = values_of(span.attributes)
    assert values["network.transport"] == "unix"
    assert "client.address" not in values


def test_a_request_without_an_image_makes_no_span(receiver: OtlpReceiver) -> None:
    ping = line_of()
    ping.timeline = None
    assert not exported(receiver, ping)


def test_a_full_batch_is_exported_before_its_time(receiver: OtlpReceiver) -> None:
    tracer = tracer_of(batch=5)
    for _ in range(5):
        tracer.log(line_of())
    assert len(receiver.wait_for_spans(5)) == 5
    tracer.close(10)


def test_spans_beyond_the_queue_are_dropped_and_counted(receiver: OtlpReceiver) -> None:
    receiver.may_answer.clear()
    tracer = tracer_of(queue=10, batch=5)
    for _ in range(25):
        tracer.log(line_of())
    assert tracer.dropped == 15
    receiver.may_answer.set()
    tracer.close(10)
    assert (tracer.exported, tracer.failed, len(receiver.spans)) == (10, 0, 10)


def test_spans_that_no_receiver_takes_are_counted(receiver: OtlpReceiver) -> None:
    receiver.status = 400
    tracer = tracer_of()
    tracer.log(line_of())
    tracer.close(10)
    assert (tracer.exported, tracer.failed) == (0, 1)


def test_the_end_does_not_wait_for_a_receiver_that_is_stuck(receiver: OtlpReceiver) -> None:
    receiver.status = 503  # is tried again, for 10 seconds
    tracer = tracer_of(exporter=OTLPSpanExporter(timeout=60))
    tracer.log(line_of())
    ended = threading.Thread(target=tracer.close, args=(0.1,), daemon=True)
    ended.start()
    ended.join(30)
    assert not ended.is_alive()
    assert receiver.requests >= 1
