"""Makes a span of each request that has ended, and exports them in batches from a thread."""

import logging
import threading
import time
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

from vipsrv.server.logs.request_line import RequestLine
from vipsrv.server.otel.environment import OtelEnvironment
from vipsrv.server.otel.request_span import attributes_of, events_of, parent_of, span_name, status_of
from vipsrv.version import __version__

_TELL_SECONDS = 10.0
"""Seconds between two lines of the log about spans that are dropped."""

_log = logging.getLogger(__name__)


class RequestTracer:
    """Follows requests that have ended: one span for each that brought an image, if it is sampled.

    The span is made in the event loop, which takes less of it than a second thread that competes for the
    interpreter. The batch processor of the SDK encodes and sends the spans from its own thread.
    """

    follows_successes = True

    def __init__(
        self, environment: OtelEnvironment, resource: Resource, exporter: SpanExporter | None = None
    ) -> None:
        self._most = environment.queue
        self._exporter = _CountingExporter(exporter or OTLPSpanExporter())
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=environment.queue,
            schedule_delay_millis=environment.delay_ms,
            max_export_batch_size=environment.batch,
        )
        # The sampler is that of OTEL_TRACES_SAMPLER; by default all are sampled, unless the parent is not.
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("vipsrv", __version__)
        self._ended = 0
        self._tell_at = 0.0
        self.dropped = 0
        """Spans that were dropped because too many waited to be exported."""

    @property
    def exported(self) -> int:
        """Spans that a receiver has accepted."""
        return self._exporter.exported

    @property
    def failed(self) -> int:
        """Spans that no receiver has accepted."""
        return self._exporter.failed

    def log(self, line: RequestLine) -> None:
        """Make the span of a request that has ended."""
        timeline = line.timeline
        if timeline is None:
            return
        # One difference of the two clocks for all times of a span, so that its stages keep their lengths.
        epoch = time.time() - time.monotonic()
        span = self._tracer.start_span(
            span_name(line),
            parent_of(line.ids),
            SpanKind.SERVER,
            start_time=_nanoseconds(epoch + timeline.arrived),
        )
        if not span.is_recording():
            return
        if self._ended - self._exporter.taken >= self._most:
            self._drop()  # it is never ended, so the processor never gets it
            return
        self._ended += 1
        span.set_attributes(attributes_of(line))
        for name, when in events_of(line, timeline):
            span.add_event(name, timestamp=_nanoseconds(epoch + when))
        status = status_of(line)
        if status is not None:
            span.set_status(status)
        span.end(_nanoseconds(epoch + (line.sent or time.monotonic())))

    def _drop(self) -> None:
        self.dropped += 1
        now = time.monotonic()
        if now >= self._tell_at:
            self._tell_at = now + _TELL_SECONDS
            _log.warning(
                "OpenTelemetry: the receiver is too slow; %d spans were dropped so far", self.dropped
            )

    def close(self, seconds: float) -> None:
        """Export what waits, for at most ``seconds``; the rest is lost. Blocks."""
        ending = threading.Thread(target=self._processor.shutdown, name="otel-spans-end", daemon=True)
        ending.start()
        ending.join(seconds)
        if ending.is_alive():
            self._exporter.shutdown()


class _CountingExporter(SpanExporter):
    """Counts the spans that go through it."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.exported = 0
        self.failed = 0
        self._is_shut_down = False

    @property
    def taken(self) -> int:
        """Spans that wait no more."""
        return self.exported + self.failed

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export a batch from the processor's thread."""
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is SpanExportResult.SUCCESS:
                self.exported += len(spans)
            else:
                self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        """Give up a transfer that is tried again."""
        if not self._is_shut_down:
            self._is_shut_down = True
            self._exporter.shutdown()


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
