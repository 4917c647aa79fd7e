"""Who sends the requests of one connection: a proxy may pass on those of many clients.

::

    Authorization: Bearer ──► Access.login ──► the identity's flow and session, kept while it is used
    client certificate ─────► one identity for all requests without a token
    neither ────────────────► the flow of the address, if the server asks for no token; 401 otherwise
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from vipsrv.errors import Unauthorized
from vipsrv.server.access import Session, identity_key
from vipsrv.server.accounts import Flow, account_key
from vipsrv.server.context import ServerContext

MOST_KEPT = 16
"""Identities of one connection that are kept without a request in flight."""

_NO_TOKEN = "this server requires a token: send it as 'Authorization: Bearer TOKEN'"  # noqa: S105 - a message


@dataclass(slots=True, eq=False)
class HttpClient:
    """A client of a connection; ``requests`` counts those in flight."""

    flow: Flow
    identity: str | None = None
    session: Session | None = None
    requests: int = 0


class HttpClients:
    """The clients of a connection from the address ``peer``.

    ``place`` is the flow of that address, to which the place of the connection counts.
    """

    __slots__ = ("_certified", "_context", "_known", "_nobody", "place")

    def __init__(self, context: ServerContext, peer: object) -> None:
        self._context = context
        self.place: Flow = context.accounts.open_flow(account_key(peer))
        self._nobody = HttpClient(self.place)
        self._certified: HttpClient | None = None
        self._known: dict[str, HttpClient] = {}  # by token, the one that was used last at the end

    def take_certificate(self, transport: asyncio.BaseTransport) -> None:
        """Take the identity of the client's certificate, if it has shown one."""
        name = self._context.access.certified(transport)
        if name is not None:
            self._certified = HttpClient(self._open_flow(name), name)

    @property
    def are_anonymous(self) -> bool:
        """Whether nobody has said yet who it is, where that is required."""
        return self._context.access.requires_login and self._certified is None and not self._known

    def of(self, fields: Mapping[str, str]) -> HttpClient:
        """Return who sends a request with these fields. Raises ``Unauthorized`` or ``Busy``."""
        access = self._context.access
        if not access.requires_login:
            return self._certified or self._nobody
        header = fields.get("authorization")
        if header is None:
            if self._certified is None:
                raise Unauthorized(_NO_TOKEN)
            return self._certified
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized(_NO_TOKEN)
        # The token is looked up for each request: it may have been revoked.
        identity = access.login(token.strip(" "), self.place.account.key)
        client = self._known.pop(identity.name, None)
        if client is None:
            self._make_room()
            flow = self._open_flow(identity.name)
            client = HttpClient(flow, identity.name, access.session(identity, flow.account))
        elif client.session is not None:
            client.session.use(identity)
        self._known[identity.name] = client
        return client

    def close(self) -> None:
        """Give up all flows: the connection is closed, and its requests have been abandoned."""
        certified = [] if self._certified is None else [self._certified]
        for client in [self._nobody, *certified, *self._known.values()]:
            self._close_flow(client.flow)

    def _make_room(self) -> None:
        if len(self._known) < MOST_KEPT:
            return
        unused = next((name for name, client in self._known.items() if not client.requests), None)
        if unused is not None:
            self._close_flow(self._known.pop(unused).flow)

    def _open_flow(self, name: str) -> Flow:
        return self._context.accounts.open_flow(identity_key(name))

    def _close_flow(self, flow: Flow) -> None:
        self._context.accounts.close_flow(flow)
        self._context.admission.flow_closed(flow)
