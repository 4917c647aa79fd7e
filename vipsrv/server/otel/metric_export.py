"""Exports the figures of ``/metrics`` over OTLP, so that nothing is counted twice.

The SDK's instruments are not used: none of them can observe a histogram that is already there (decision 43).
Only the model of the SDK and its exporter are.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as OtelHistogram
from opentelemetry.sdk.metrics.export import Metric as OtelMetric
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from vipsrv.server.metrics.catalogue import METRICS, Metric, MetricType
from vipsrv.server.metrics.snapshot import Figures, Histogram, Labels
from vipsrv.version import __version__

_UNITS = {"seconds": "s", "bytes": "By", "": ""}
"""The units of the Unified Code for Units of Measure (UCUM), as OpenTelemetry wants them."""

_CUMULATIVE = AggregationTemporality.CUMULATIVE
_SCOPE = InstrumentationScope("vipsrv", __version__)

_log = logging.getLogger(__name__)


class MetricExport:
    """Exports what ``collect`` returns each ``interval`` seconds: ``start`` in the event loop, then ``stop``.

    Figures are collected in the event loop, in which they change, and sent by a thread.
    """

    def __init__(
        self,
        collect: Callable[[], Figures],
        resource: Resource,
        interval: float,
        exporter: MetricExporter | None = None,
    ) -> None:
        self._collect = collect
        self._resource = resource
        self._interval = interval
        self._exporter = exporter or OTLPMetricExporter()
        self._started = time.time_ns()
        self._exporting: asyncio.Task[None] | None = None
        self._sender: threading.Thread | None = None

    def start(self) -> None:
        """Export from now on."""
        self._exporting = asyncio.get_running_loop().create_task(self._export_regularly())

    async def stop(self, seconds: float) -> None:
        """Export the last figures, for at most ``seconds``."""
        if self._exporting is not None:
            self._exporting.cancel()
            with suppress(asyncio.CancelledError):
                await self._exporting
        ends = time.monotonic() + seconds
        await self._wait_for_sender(seconds)
        self._export()
        await self._wait_for_sender(ends - time.monotonic())
        self._exporter.shutdown()

    async def _export_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                self._export()
            except Exception:  # noqa: BLE001 - logged with its traceback; the next export makes up for it
                _log.exception("OpenTelemetry: the figures could not be collected")

    def _export(self) -> None:
        """Send the figures of now, unless the last ones are still on their way.

        Figures are cumulative, so the next export makes up for one that is left out.
        """
        if self._sender is not None and self._sender.is_alive():
            return
        figures, now = self._collect(), time.time_ns()
        # A daemon: the end of the process does not wait for a receiver that is stuck.
        self._sender = threading.Thread(
            target=self._send, args=(figures, now), name="otel-metrics", daemon=True
        )
        self._sender.start()

    def _send(self, figures: Figures, now: int) -> None:
        metrics = list(_metrics(figures, self._started, now))
        data = MetricsData([ResourceMetrics(self._resource, [ScopeMetrics(_SCOPE, metrics, "")], "")])
        if self._exporter.export(data) is not MetricExportResult.SUCCESS:
            _log.warning("OpenTelemetry: the figures could not be exported")

    async def _wait_for_sender(self, seconds: float) -> None:
        if self._sender is not None:
            await asyncio.to_thread(self._sender.join, max(0.0, seconds))


def _metrics(figures: Figures, started: int, now: int) -> Iterator[OtelMetric]:
    """Yield all metrics, with times in nanoseconds since the epoch.

    A counter has its name without ``_total``, which is what stores in the manner of Prometheus add.
    """
    for name, metric in METRICS.items():
        values = figures.values.get(name)
        if values is None:
            continue
        named = metric.family if metric.type is MetricType.COUNTER else name
        points: list[NumberDataPoint] = []
        histograms: list[HistogramDataPoint] = []
        for labels, value in values.items():
            if isinstance(value, Histogram):
                histograms.append(_histogram_point(metric, labels, value, started, now))
            else:
                points.append(_point(metric, labels, value, started, now))
        data: Sum | Gauge | OtelHistogram
        if metric.type is MetricType.HISTOGRAM:
            data = OtelHistogram(histograms, _CUMULATIVE)
        elif metric.type is MetricType.COUNTER:
            data = Sum(points, _CUMULATIVE, is_monotonic=True)
        else:
            data = Gauge(points)
        yield OtelMetric(named, metric.help, _UNITS[metric.unit], data)


def _point(metric: Metric, labels: Labels, value: float, started: int, now: int) -> NumberDataPoint:
    return NumberDataPoint(dict(zip(metric.labels, labels, strict=True)), started, now, value)


def _histogram_point(
    metric: Metric, labels: Labels, value: Histogram, started: int, now: int
) -> HistogramDataPoint:
    return HistogramDataPoint(
        attributes=dict(zip(metric.labels, labels, strict=True)),
        start_time_unix_nano=started,
        time_unix_nano=now,
        count=value.count,
        sum=value.sum,
        bucket_counts=value.counts,
        explicit_bounds=metric.buckets,
        # Not known; the encoder leaves out what is None.
        min=None,  # type: ignore[arg-type]
        max=None,  # type: ignore[arg-type]
    )
