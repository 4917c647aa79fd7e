"""Who the client of a connection is, and what it may send before that is known.

::

    ANONYMOUS ── HELLO with a valid token, or version 1 from an address that needs none ──► OPEN
        └────── anything else, or nothing for LOGIN_SECONDS: 401 ──► LINGERING

A PING is answered at any time. Until the login a connection holds no more than ``MOST_HELD`` bytes of what
its client has sent.
"""

import asyncio
from typing import Any

from vipsrv.errors import BadRequest, RequestError, Unauthorized
from vipsrv.protocol import Header, Kind, MessageStarted
from vipsrv.server.access import Session, identity_key
from vipsrv.server.accounts import Flow, account_key
from vipsrv.server.context import ServerContext

LOGIN_SECONDS = 10.0
"""How long a client may take to log in; it has the token before it connects."""

MOST_HELD = 4096
"""Bytes: the longest meta that is read before the login, and the most that is read ahead."""

_NO_TOKEN = "this server requires a token: send HELLO with one first"  # noqa: S105 - a message
_VERSION_1 = "this server requires a token, which version 1 cannot carry; use version 2"


class Login:
    """Keeps who the client of a connection is: its address ``peer``, and its identity after the login.

    ``place`` is the flow of the client's address, to which the place of the connection counts. ``flow`` is
    that of the identity, or else the same. ``identity`` is the name of a client that has logged in or shown a
    certificate, and ``session`` the login by a token, which takes the place of a certificate.
    """

    __slots__ = ("_context", "_flows", "_peer", "flow", "identity", "place", "session")

    def __init__(self, context: ServerContext, peer: object) -> None:
        self._context = context
        self._peer = peer
        self.place: Flow = context.accounts.open_flow(account_key(peer))
        self.flow = self.place
        self._flows = [self.place]
        self.identity: str | None = None
        self.session: Session | None = None

    def take_certificate(self, transport: asyncio.BaseTransport) -> None:
        """Take the identity of the client's certificate, if it has shown one."""
        name = self._context.access.certified(transport)
        if name is not None:
            self._identify(name)

    def check_first(self, head: MessageStarted) -> None:
        """Raise ``Unauthorized`` if a client that has not logged in may not send this message."""
        if head.version == 1:
            if not self._context.access.allows_v1(self._peer):
                raise Unauthorized(_VERSION_1)
        elif head.body_size or not (
            head.kind == Kind.PING or (head.kind == Kind.HELLO and head.meta.get("token") is not None)
        ):
            raise Unauthorized(_NO_TOKEN)

    def hello(self, meta: dict[str, Any]) -> dict[str, Any]:
        """Log in if a HELLO has a token, and return the meta of its reply. Raises ``RequestError``."""
        token = meta.get("token")
        if token is not None:
            self._log_in(token)
        described = self._context.describe()
        if self.session is not None:
            self.session.refresh()
            return self.session.describe(described)
        return described if self.identity is None else {**described, "identity": self.identity}

    def close(self) -> None:
        """Give up the flows of a connection that is closed, once its requests have been abandoned."""
        for flow in self._flows:
            self._context.accounts.close_flow(flow)
            self._context.admission.flow_closed(flow)

    def _log_in(self, token: object) -> None:
        access = self._context.access
        if not access.requires_login:
            raise BadRequest("token: this server does not offer tokens; send HELLO without one")
        if not isinstance(token, str):
            raise BadRequest("token: must be a string")
        identity = access.login(token, self.place.account.key)
        if self.session is None:
            self._identify(identity.name)
            self.session = access.session(identity, self.flow.account)
        elif identity.name == self.session.name:
            self.session.use(identity)  # the token of the last HELLO counts
        else:
            raise BadRequest(
                f"token: this connection is in use by {self.identity}; connect again for another identity"
            )

    def _identify(self, name: str) -> None:
        self.identity = name
        self.flow = self._context.accounts.open_flow(identity_key(name))
        self._flows.append(self.flow)


def error_before_login(header: Header | None, text: str) -> RequestError:
    """Return the error for bytes that are no message, or for a message that is too long before the login."""
    if header is not None and header.meta_size > MOST_HELD:
        return Unauthorized(f"{_NO_TOKEN}; its meta may have {MOST_HELD} bytes")
    return BadRequest(text)


def too_late() -> Unauthorized:
    """Return the error for a client that has not logged in within ``LOGIN_SECONDS``."""
    return Unauthorized(f"{_NO_TOKEN}; none arrived within {LOGIN_SECONDS:g} s")
