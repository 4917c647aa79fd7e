"""The figures of a server as a receiver of OTLP gets them."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from tests.support.otlp_receiver import OtlpReceiver, values_of
from vipsrv.server.metrics import catalogue
from vipsrv.server.metrics.snapshot import Figures, Histogram
from vipsrv.server.otel.environment import resource_of
from vipsrv.server.otel.metric_export import MetricExport

HOURLY = 3600.0


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        yield receiver


def figures_of(requests: int = 7) -> Figures:
    figures = Figures()
    figures.add(catalogue.REQUESTS, requests, "resize", "200", "v2", "none", "jpeg", "webp")
    figures.add(catalogue.REQUESTS, 2, "resize", "429", "v2", "none", "none", "none")
    figures.add(catalogue.SPOOL, 512, "memory")
    figures.add(catalogue.BUILD, 1, "1.0", "3.13", "8.18")
    histogram = Histogram.of(catalogue.RATIOS)
    histogram.counts[1] = 3
    histogram.counts[-1] = 1
    histogram.sum = 2006.0
    figures.add(catalogue.COMPRESSION_RATIO, histogram)
    return figures


async def exported(receiver: OtlpReceiver) -> dict[str, Metric]:
    export = MetricExport(figures_of, resource_of(None), HOURLY)
    export.start()
    await export.stop(10)
    (one,) = receiver.resource_metrics
    return {metric.name: metric for scope in one.scope_metrics for metric in scope.metrics}


async def test_a_counter_is_a_sum_that_only_rises(receiver: OtlpReceiver) -> None:
    metric = (await exported(receiver))["vipsrv_requests"]
    assert metric.description == catalogue.REQUESTS.help
    assert metric.sum.is_monotonic
    assert metric.sum.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    values = {values_of(point.attributes)["status"]: point.as_int for point in metric.sum.data_points}
    assert values == {"200": 7, "429": 2}
    for point in metric.sum.data_points:
        assert 0 < point.start_time_unix_nano < point.time_unix_nano


async def test_a_gauge_has_its_unit(receiver: OtlpReceiver) -> None:
    metric = (await exported(receiver))["vipsrv_spool_bytes"]
    (point,) = metric.gauge.data_points
    assert (metric.unit, point.as_int, values_of(point.attributes)) == ("By", 512, {"store": "memory"})


async def test_facts_are_a_gauge(receiver: OtlpReceiver) -> None:
    (point,) = (await exported(receiver))["vipsrv_build_info"].gauge.data_points
    assert values_of(point.attributes) == {"version": "1.0", "python": "3.13", "libvips": "8.18"}


async def test_a_histogram_keeps_its_buckets(receiver: OtlpReceiver) -> None:
    metric = (await exported(receiver))["vipsrv_compression_ratio"]
    (point,) = metric.histogram.data_points
    assert (point.count, point.sum) == (4, 2006.0)
    assert tuple(point.explicit_bounds) == catalogue.RATIOS
    assert list(point.bucket_counts) == [0, 3, *[0] * 8, 1]
    assert not point.HasField("min")
    assert not point.HasField("max")


async def test_figures_are_exported_regularly(receiver: OtlpReceiver) -> None:
    export = MetricExport(figures_of, resource_of(None), 0.01)
    export.start()
    async with asyncio.timeout(30):
        while len(receiver.resource_metrics) < 3:
            await asyncio.sleep(0.01)
    await export.stop(10)


async def test_an_export_that_fails_is_logged_and_made_up_for(
    receiver: OtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    failures = iter([RuntimeError("can't start new thread")])

    def collect() -> Figures:
        for failure in failures:
            raise failure
        return figures_of()

    export = MetricExport(collect, resource_of(None), 0.01)
    export.start()
    async with asyncio.timeout(30):
        while not receiver.resource_metrics:
            await asyncio.sleep(0.01)
    await export.stop(10)
    assert "the figures could not be collected" in caplog.text


async def test_a_receiver_that_is_stuck_delays_neither_requests_nor_the_end(receiver: OtlpReceiver) -> None:
    receiver.may_answer.clear()
    collected = 0

    def collect() -> Figures:
        nonlocal collected
        collected += 1
        return figures_of()

    export = MetricExport(collect, resource_of(None), 0.001)
    export.start()
    async with asyncio.timeout(30):
        while not receiver.requests:
            await asyncio.sleep(0.01)
        for _ in range(3):
            export._export()  # which is left out
        await export.stop(0.05)
    assert collected == 1
    assert sum(thread.name == "otel-metrics" for thread in threading.enumerate()) == 1
