"""Reads the header by which a trusted proxy names its client, and hands the connection over.

The bytes of all other clients are never taken for such a header.
"""

import asyncio
import logging
from typing import cast

from vipsrv.errors import ProtocolError
from vipsrv.protocol.proxy_protocol import ProxyHeaderReader, Source, Unnamed
from vipsrv.server.accounts import UNIX_SOCKET, account_key
from vipsrv.server.address_list import AddressList
from vipsrv.server.connections.preliminary import MakeConnection, PreliminaryConnection
from vipsrv.server.connections.transport import peer_name
from vipsrv.server.context import ServerContext

HEADER_SECONDS = 5.0
"""How long a proxy may take to send the header; it does so before it forwards anything."""

_log = logging.getLogger(__name__)


class ProxiedConnection(PreliminaryConnection):
    """A connection until it is known for whom it speaks; ``make_connection`` makes the one that follows."""

    _peer: object = None

    def __init__(self, context: ServerContext, trusted: AddressList, make_connection: MakeConnection) -> None:
        super().__init__(context, make_connection, HEADER_SECONDS)
        self._trusted = trusted
        self._reader = ProxyHeaderReader()
        self._buffer = memoryview(b"")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the header if the client is a trusted proxy, and hand over at once otherwise."""
        self._transport = cast("asyncio.Transport", transport)
        self._peer = peer = peer_name(transport)
        if peer is None:
            self._transport.abort()
            return
        if peer not in self._trusted:
            self._hand_over(peer)
            return
        # A place of the proxy's own until then. A proxy is not bounded as a client is.
        self._take_place(peer)
        if self._context.draining:  # accepted before the listeners were closed
            self.drain()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - no more than the header may be read
        """Return the buffer for the next bytes of the header."""
        self._buffer = memoryview(bytearray(self._reader.wanted))
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Handle ``nbytes`` bytes of the header."""
        try:
            self._reader.receive_data(self._buffer[:nbytes])
        except ProtocolError as error:
            self._refuse(str(error))
            return
        client = self._reader.client
        if client is None:
            return
        self._leave()
        if isinstance(client, Source):
            self._hand_over((client.host, client.port))
        elif client is Unnamed.UNIX:
            self._hand_over(UNIX_SOCKET)
        else:
            self._hand_over(self._peer)

    def eof_received(self) -> bool:
        """Close: a proxy that has no header to send checks whether the port is open."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason makes no difference
        """Forget the connection."""
        self._leave()

    def watch(self, now: float) -> None:
        """Close the connection if the header does not come."""
        if now <= self.watch_at:
            return
        if self._context.draining:
            self._transport.close()
        else:
            self._refuse(f"there was no header of the PROXY protocol within {HEADER_SECONDS:g} s")

    def _refuse(self, reason: str) -> None:
        _log.warning("closing a connection of the trusted proxy %s: %s", account_key(self._peer), reason)
        self._transport.abort()

    def _hand_over(self, peer: object) -> None:
        connection = self._make_connection(peer)
        self._transport.set_protocol(connection)
        connection.connection_made(self._transport)
