"""Traces and metrics of a real server, as a receiver of OTLP gets them."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.images import jpeg
from tests.support.otlp_receiver import OtlpReceiver, values_of
from tests.support.running_server import RunningServer
from vipsrv.client import Client
from vipsrv.errors import CorruptImage

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


def serve(receiver: OtlpReceiver, *arguments: str, **variables: str) -> RunningServer:
    inherited = {name: "" for name in os.environ if name.startswith("OTEL_")}
    environment: Mapping[str, str] = {
        **inherited,
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_METRICS_EXPORTER": "none",
        **variables,
    }
    return RunningServer("--workers", "1", *arguments, environment=environment)


def test_a_request_is_a_span_of_its_clients_trace(receiver: OtlpReceiver) -> None:
    with (
        serve(receiver, "--otel", OTEL_BSP_SCHEDULE_DELAY="50") as server,
        Client(server.host, server.port) as client,
    ):
        client.resize(jpeg(), width=16, traceparent=TRACEPARENT)
        (span,) = receiver.wait_for_spans(1)
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("resize", TRACE, PARENT)
    assert [event.name for event in span.events] == ["received", "queued", "started", "ended", "sent"]
    times = [span.start_time_unix_nano, *(event.time_unix_nano for event in span.events)]
    assert times == sorted(times)
    assert values_of(span.attributes)["vipsrv.result.widths"] == [16]


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="root reads /proc/PID/environ")
def test_the_key_of_the_receiver_is_used_and_forgotten(receiver: OtlpReceiver) -> None:
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": "x-key=very%20secret", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with serve(receiver, "--otel", **headers) as server, Client(server.host, server.port) as client:
        client.resize(jpeg(), width=16)
        receiver.wait_for_spans(1)
        assert b"very%20secret" not in Path(f"/proc/{server.pid}/environ").read_bytes()
    assert receiver.headers[0]["x-key"] == "very secret"


def test_the_end_of_the_server_exports_what_waits(receiver: OtlpReceiver) -> None:
    with serve(receiver, "--otel") as server:
        with Client(server.host, server.port) as client:
            client.ping()
            client.resize(jpeg(), width=16)
            with pytest.raises(CorruptImage):
                client.resize(jpeg()[:200], width=16)
        assert not receiver.spans
        assert server.stop() == 0
    assert [values_of(span.attributes).get("error.type") for span in receiver.spans] == [
        None,
        "corrupt_image",
    ]


def test_nothing_is_exported_unless_it_is_asked_for(receiver: OtlpReceiver) -> None:
    with serve(receiver) as server, Client(server.host, server.port) as client:
        client.resize(jpeg(), width=16, traceparent=TRACEPARENT)
    assert not receiver.requests


def test_a_disabled_sdk_exports_nothing(receiver: OtlpReceiver) -> None:
    with serve(receiver, "--otel", OTEL_SDK_DISABLED="true") as server:
        with Client(server.host, server.port) as client:
            client.resize(jpeg(), width=16)
        server.wait_for_log("OTEL_SDK_DISABLED")
    assert not receiver.requests


def test_the_figures_are_exported_as_well(receiver: OtlpReceiver) -> None:
    with serve(receiver, "--otel", OTEL_METRICS_EXPORTER="otlp", OTEL_TRACES_EXPORTER="none") as server:
        with Client(server.host, server.port) as client:
            client.resize(jpeg(), width=16)
        assert server.stop() == 0
    assert not receiver.spans
    metrics = {
        metric.name: metric
        for one in receiver.resource_metrics
        for scope in one.scope_metrics
        for metric in scope.metrics
    }
    (point,) = metrics["vipsrv_requests"].sum.data_points
    assert point.as_int == 1
    assert values_of(point.attributes)["kind"] == "resize"
    (seconds,) = metrics["vipsrv_request_seconds"].histogram.data_points
    assert seconds.count == 1


@pytest.mark.skipif(sys.platform != "linux", reason="several gateways need Linux")
def test_each_gateway_exports_its_own_requests(receiver: OtlpReceiver) -> None:
    with (
        serve(
            receiver, "--otel", "--gateways", "2", "--workers", "2", OTEL_BSP_SCHEDULE_DELAY="50"
        ) as server,
        ExitStack() as clients,
    ):
        number = 0
        instances: set[str] = set()
        while len(instances) < 2:
            # The kernel chooses the gateway of a connection.
            assert number < 64, "all connections came to one gateway"
            client = clients.enter_context(Client(server.host, server.port))
            client.resize(jpeg(), width=16)
            number += 1
            receiver.wait_for_spans(number)
            instances = {
                values_of(one.resource.attributes)["service.instance.id"] for one in receiver.resource_spans
            }
    gateways = {values_of(one.resource.attributes)["vipsrv.gateway"] for one in receiver.resource_spans}
    assert gateways == {1, 2}
