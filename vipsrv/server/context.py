"""The parts of the server that a connection may use. The gateway creates them; connections do not know it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vipsrv.errors import Draining, Limit, TooLarge
from vipsrv.server.access import Access
from vipsrv.server.accounts import Accounts
from vipsrv.server.admission import Admission
from vipsrv.server.ended_requests import EndedRequests
from vipsrv.server.logs.access_log import AccessLog
from vipsrv.server.open_connections import OpenConnections
from vipsrv.server.settings import ServerSettings
from vipsrv.server.uploads import Uploads
from vipsrv.storage.spool import Spool


@dataclass(slots=True)
class InFlight:
    """The requests with an image that were accepted and have no outcome yet, and the bytes of the images."""

    requests: int = 0
    size: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class ServerContext:
    """The parts of the server that its connections share.

    ``describe`` returns the meta of a HELLO reply; ``check_ready`` raises ``Draining`` if the server has had
    no worker for a while.
    """

    settings: ServerSettings
    spool: Spool
    admission: Admission
    describe: Callable[[], dict[str, Any]]
    check_ready: Callable[[], None]
    uploads: Uploads | None = None
    """Keeps uploads that can be resumed, if this server does."""
    access: Access = field(default_factory=Access)
    accounts: Accounts = field(default_factory=Accounts)
    access_log: AccessLog = field(default_factory=AccessLog)
    ended_requests: EndedRequests = field(init=False)
    """Is told of each request that has ended; ``access_log`` follows it."""
    connections: OpenConnections = field(init=False)
    in_flight: InFlight = field(default_factory=InFlight)
    tls_failures: int = 0
    """The number of TLS handshakes that have failed."""
    withdrawn: bool = False
    """Whether load balancers are told to turn away, because the server stops: it says that it is not ready.
    From then on until it ends, also while it serves as before (``drain_delay``)."""
    draining: bool = False
    """Whether the server is shutting down: requests that arrive now are refused."""
    has_successor: bool = False
    """Whether others go on for the clients: the listening sockets live on without this server, or load
    balancers have turned away from it. Then no client should notice that it stops: requests that arrive
    during the drain, on connections that were accepted before, are served."""

    def __post_init__(self) -> None:
        self.ended_requests = EndedRequests(self.access_log)
        self.connections = OpenConnections(
            self.settings.connections, per_client=self.settings.client_connections
        )

    @property
    def turns_clients_away(self) -> bool:
        """Whether clients are asked to connect anew, because others go on for them."""
        return self.withdrawn or self.has_successor

    def change_settings(self, settings: ServerSettings) -> None:
        """Use other settings from now on, for the connections that are open as well."""
        self.settings = settings
        self.connections.change_limits(settings.connections, settings.client_connections)

    def check_upload(self, size: int) -> None:
        """Raise ``TooLarge`` or ``Draining`` if a request with ``size`` bytes of body cannot be accepted."""
        limit = self.settings.max_upload
        if size > limit:
            raise TooLarge(
                f"the image is {size} bytes, {size - limit} over the limit of {limit}", limit=Limit.MAX_UPLOAD
            )
        if self.draining and not self.has_successor:
            raise Draining("the server is shutting down")
