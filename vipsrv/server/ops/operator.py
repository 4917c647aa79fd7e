"""What serves the operator: the routes of the ops listener, and its connections, which no load keeps out.

::

    ops listener ──► HttpConnection ──► guard ─┬─► /livez, /readyz          health.py
                     (places of its own)       ├─► /metrics, /, /events     figures of all gateways
                                               └─► /resize, /info, …        as on a listener for clients

Images that are dropped on the live page are requests like any other, with the limits and tokens of the
server. Everything else needs no worker, no room in the spool, and no place among the clients' connections.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

from vipsrv.address import Address
from vipsrv.server.access import is_exposed
from vipsrv.server.api.image_routes import image_routes
from vipsrv.server.context import ServerContext
from vipsrv.server.ended_requests import EndedRequests
from vipsrv.server.http.connection import HttpConnection
from vipsrv.server.http.routes import Page, Routes
from vipsrv.server.logs.request_line import RequestLine
from vipsrv.server.metrics.gateway_figures import GatewayFigures
from vipsrv.server.metrics.merging import SNAPSHOTS
from vipsrv.server.metrics.page import metrics_page
from vipsrv.server.open_connections import OPS_CONNECTIONS, Connection, OpenConnections
from vipsrv.server.ops.canary import Canary
from vipsrv.server.ops.guard import guarded
from vipsrv.server.ops.health import Health, health_pages
from vipsrv.server.ops.live_events import add_live_figures
from vipsrv.server.ops.load import LoadHistory
from vipsrv.server.ops.page.document import page_routes
from vipsrv.server.ops.snapshots import Snapshots
from vipsrv.server.settings import ServerSettings
from vipsrv.server.tus.resources import version_headers
from vipsrv.workers.pool import WorkerPool

_IMAGE_KINDS = frozenset({"resize", "info"})


class _EndedRequests(EndedRequests):
    """Tells the ``service`` of requests with an image only: scrapes and probes are no clients' requests.

    The log has all of them.
    """

    def __init__(self, service: ServerContext) -> None:
        super().__init__(service.access_log)
        self._service = service.ended_requests

    @property
    def follows_successes(self) -> bool:
        """Whether a successful request needs a line."""
        return self._service.follows_successes

    def log(self, line: RequestLine) -> None:
        """Tell all who follow such a request that it has ended."""
        if line.kind in _IMAGE_KINDS:
            self._service.log(line)
        else:
            super().log(line)


@dataclass(slots=True, eq=False, kw_only=True)
class _OpsContext(ServerContext):
    """The context of connections to the ops listener: those of ``service``, but with places of their own.

    A drain of the server is none of these connections: the operator watches it. Images are refused.
    """

    service: ServerContext

    def __post_init__(self) -> None:
        self.ended_requests = _EndedRequests(self.service)
        self.connections = OpenConnections(OPS_CONNECTIONS, per_client=OPS_CONNECTIONS)

    def change_settings(self, settings: ServerSettings) -> None:
        """Use other settings from now on."""
        self.settings = settings

    def check_upload(self, size: int) -> None:
        """Raise ``TooLarge`` or ``Draining`` as the service does."""
        self.service.check_upload(size)


class Operator:
    """The operator's side of a gateway: its figures and health, and the connections to the ops listener.

    ``number`` counts the ``gateways`` of the server from 1. ``certificate_expires`` is as for
    ``GatewayFigures``.
    """

    def __init__(
        self,
        context: ServerContext,
        pool: WorkerPool,
        snapshots: Snapshots,
        *,
        number: int,
        gateways: int,
        certificate_expires: Callable[[], float | None],
    ) -> None:
        self._context = _OpsContext(
            service=context,
            settings=context.settings,
            spool=context.spool,
            admission=context.admission,
            describe=context.describe,
            check_ready=context.check_ready,
            access=context.access,
            accounts=context.accounts,
            access_log=context.access_log,
            in_flight=context.in_flight,
        )
        self.canary = Canary(
            context.admission,
            formats=lambda: (pool.formats.readers, pool.formats.writers),
            deadline=lambda: context.settings.deadline,
        )
        self.health = Health(context, pool, self.canary, snapshots)
        self.figures = GatewayFigures(
            context, pool, gateway=number, gateways=gateways, certificate_expires=certificate_expires
        )
        snapshots.add(SNAPSHOTS, self.figures.snapshot)
        self._load = add_live_figures(context, pool, snapshots)
        pages = {
            **page_routes(snapshots),
            **health_pages(self.health),
            "/metrics": metrics_page(partial(snapshots.collect, SNAPSHOTS)),
        }
        images = image_routes(self._context)
        self._routes = {known: ops_routes(pages, images, names_are_known=known) for known in (True, False)}
        self._names_are_known = True

    @property
    def connections(self) -> OpenConnections:
        """The connections to the ops listener."""
        return self._context.connections

    def make_connection(self) -> HttpConnection:
        """Return the connection of one operator, browser or probe."""
        return HttpConnection(self._context, self._routes[self._names_are_known])

    def due(self, now: float) -> Collection[Connection | LoadHistory]:
        """Return what has something to check at ``now``, or to record."""
        return [*self._context.connections.due(now), self._load]

    def listens_on(self, listening: Collection[Address]) -> None:
        """Take note of the addresses of the ops listener."""
        self._names_are_known = not any(address.path or is_exposed(address) for address in listening)

    def change_settings(self, settings: ServerSettings) -> None:
        """Use other settings from now on."""
        self._context.change_settings(settings)

    def drain(self) -> None:
        """Close the connections after the replies that are due: operators connect to another server."""
        self._context.draining = True
        for connection in self.connections:
            connection.drain()

    async def close(self, seconds: float) -> None:
        """Close all connections; replies that are due may take ``seconds``."""
        for connection in self.connections:
            connection.stop()
        await self.connections.wait_until_closed(seconds)
        for connection in self.connections:
            connection.abort()


def ops_routes(pages: Mapping[str, Page], images: Routes, *, names_are_known: bool) -> Routes:
    """Return the routes of the ops listener, which refuse requests from other web sites.

    ``pages`` need no token, because none has one where Prometheus and probes come from; ``images`` do.
    """
    public = {path: replace(page, public=True) for path, page in pages.items()}
    return Routes(
        routes=guarded({**images.routes, **public}, names_are_known=names_are_known),
        problem=images.problem,
        more_headers=version_headers,
    )
