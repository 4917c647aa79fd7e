"""What a gateway exports over OTLP: starts it as the variables say, and ends it in bounded time."""

import asyncio
import logging

from vipsrv.server.ended_requests import EndedRequests
from vipsrv.server.hardening import forget_variable
from vipsrv.server.otel.environment import OtelEnvironment, resource_of
from vipsrv.server.otel.request_tracer import RequestTracer

FLUSH_SECONDS = 3.0
"""How long the end of the server waits for the last spans and figures to be exported."""

SECRET_VARIABLES = tuple(f"OTEL_EXPORTER_OTLP_{signal}HEADERS" for signal in ("", "TRACES_", "METRICS_"))
"""May hold the key of a receiver. The exporters have read them."""

_log = logging.getLogger(__name__)


class Telemetry:
    """The exports of one gateway: ``start`` within the event loop, then ``stop``.

    ``gateway`` is its number if there are several. Raises ``StartFailed`` for a variable that is wrong.
    """

    def __init__(self, gateway: int | None) -> None:
        environment = OtelEnvironment.read()
        resource = resource_of(gateway)
        self._tracer = RequestTracer(environment, resource) if environment.traces else None
        for name in SECRET_VARIABLES:
            forget_variable(name)
        if not environment.traces and not environment.metrics:
            _log.warning("--otel: nothing is exported, because OTEL_SDK_DISABLED or OTEL_*_EXPORTER says so")

    def follow(self, requests: EndedRequests) -> None:
        """Make spans of all requests that end from now on."""
        if self._tracer is not None:
            requests.add(self._tracer)

    async def stop(self) -> None:
        """Export what waits, for at most ``FLUSH_SECONDS``."""
        tracer = self._tracer
        if tracer is None:
            return
        await asyncio.to_thread(tracer.close, FLUSH_SECONDS)
        if tracer.dropped or tracer.failed:
            _log.warning(
                "OpenTelemetry: %d spans were dropped because too many waited, and %d could not be exported; "
                "%d were",
                tracer.dropped,
                tracer.failed,
                tracer.exported,
            )
