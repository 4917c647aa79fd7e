"""The base of connections that serve no request yet: they have a place and a timeout, and then hand over."""

import asyncio
import time
from collections.abc import Callable

from vipsrv.server.accounts import Flow, account_key
from vipsrv.server.connections.served import DRAIN_SECONDS
from vipsrv.server.context import ServerContext

MakeConnection = Callable[[object], asyncio.BufferedProtocol]
"""Makes the connection of a client with this address, in the form of a ``peername``."""


class PreliminaryConnection(asyncio.BufferedProtocol):
    """What the gateway calls on a connection on which no request can have begun.

    ``seconds`` is how long it may take until it hands over to what ``make_connection`` makes.
    """

    _transport: asyncio.Transport
    _flow: Flow | None = None  # while it has a place of its own

    def __init__(self, context: ServerContext, make_connection: MakeConnection, seconds: float) -> None:
        self._context = context
        self._make_connection = make_connection
        self.watch_at = time.monotonic() + seconds

    def watch(self, now: float) -> None:
        """Close the connection if it takes too long."""
        raise NotImplementedError

    def drain(self) -> None:
        """Wait a moment for what is on its way, so that its client is answered; then close."""
        self.watch_at = min(self.watch_at, time.monotonic() + DRAIN_SECONDS)

    def stop(self) -> None:
        """Close: no request has begun."""
        self._transport.close()

    def give_way(self) -> bool:
        """Return ``False``: a connection that waits for its client is not idle."""
        return False

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _take_place(self, peer: object) -> bool:
        """Count the connection as one of this client; return whether there is a place for it."""
        self._flow = self._context.accounts.open_flow(account_key(peer))
        return self._context.connections.add(self, self._flow.account)

    def _leave(self) -> None:
        """Give the place back, if it has one."""
        flow, self._flow = self._flow, None
        if flow is not None:
            self._context.connections.remove(self)
            self._context.accounts.close_flow(flow)
