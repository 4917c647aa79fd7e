"""The page ``/metrics``: the figures of all gateways as one, as text for Prometheus."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from vipsrv.server.http.messages import HttpRequest, HttpResponse
from vipsrv.server.http.routes import Page
from vipsrv.server.metrics.exposition import Exposition
from vipsrv.server.metrics.merging import ServerFigures

Collect = Callable[[], Awaitable[Sequence[Any]]]
"""Returns the snapshots of all gateways, each as ``GatewayFigures.snapshot`` makes it, the own one first."""


def metrics_page(collect: Collect) -> Page:
    """Return the page of the figures that ``collect`` returns."""
    server, exposition = ServerFigures(), Exposition()

    async def answer(request: HttpRequest) -> HttpResponse:
        figures = server.merge(await collect())
        body, content_type = exposition.render(figures, request.fields.get("accept", ""))
        return HttpResponse(
            status=200,
            headers=(("Content-Type", content_type), ("Cache-Control", "no-store")),
            body=body,
        )

    return Page(answer)
