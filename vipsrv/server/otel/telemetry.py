"""What a gateway exports over OTLP: starts it as the variables say, and ends it in bounded time."""

import asyncio
import logging
from collections.abc import Callable

from vipsrv.server.ended_requests import EndedRequests
from vipsrv.server.hardening import forget_variable
from vipsrv.server.metrics.snapshot import Figures
from vipsrv.server.otel.environment import OtelEnvironment, resource_of
from vipsrv.server.otel.metric_export import MetricExport
from vipsrv.server.otel.request_tracer import RequestTracer

FLUSH_SECONDS = 3.0
"""How long the end of the server waits for the last spans and figures to be exported."""

SECRET_VARIABLES = tuple(f"OTEL_EXPORTER_OTLP_{signal}HEADERS" for signal in ("", "TRACES_", "METRICS_"))
"""May hold the key of a receiver. The exporters have read them."""

_log = logging.getLogger(__name__)


class Telemetry:
    """The exports of one gateway: ``start`` within the event loop, then ``stop``.

    Traces are made of all ``requests`` that end, metrics of the figures that ``collect`` returns. ``gateway``
    is its number, counted from 0, if there are several. Raises ``StartFailed`` for a variable that is wrong.
    """

    def __init__(
        self, requests: EndedRequests, collect: Callable[[], Figures], *, gateway: int | None
    ) -> None:
        environment = OtelEnvironment.read()
        resource = resource_of(gateway)
        self._tracer: RequestTracer | None = None
        self._metrics: MetricExport | None = None
        if environment.traces:
            self._tracer = RequestTracer(environment, resource)
            requests.add(self._tracer)
        if environment.metrics:
            self._metrics = MetricExport(collect, resource, environment.interval)
        for name in SECRET_VARIABLES:
            forget_variable(name)
        if not environment.traces and not environment.metrics:
            _log.warning("--otel: nothing is exported, because OTEL_SDK_DISABLED or OTEL_*_EXPORTER says so")

    def start(self) -> None:
        """Export from now on."""
        if self._metrics is not None:
            self._metrics.start()

    async def stop(self) -> None:
        """Export what waits, for at most ``FLUSH_SECONDS``."""
        tracer = self._tracer
        async with asyncio.TaskGroup() as ending:
            if tracer is not None:
                ending.create_task(asyncio.to_thread(tracer.close, FLUSH_SECONDS))
            if self._metrics is not None:
                ending.create_task(self._metrics.stop(FLUSH_SECONDS))
        if tracer is not None and (tracer.dropped or tracer.failed):
            _log.warning(
                "OpenTelemetry: %d spans were dropped because too many waited, and %d could not be exported; "
                "%d were",
                tracer.dropped,
                tracer.failed,
                tracer.exported,
            )
