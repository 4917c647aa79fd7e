"""The connections of an asyncio client: made when a call needs one, shared by calls, replaced when lost."""

import asyncio
import os
import weakref

from vipsrv.address import Address
from vipsrv.client.asyncio_connection import AsyncConnection
from vipsrv.client.core import PendingRequest
from vipsrv.client.embedded import EmbeddedServer
from vipsrv.client.requests import ClientRequest, ProtocolVersion
from vipsrv.client.sources import OnSent, Source
from vipsrv.client.timeouts import Timeout


class AsyncPool:
    """Connections to one server, which may be an embedded one that is started with the first connection.

    Version 2 requests share one connection; each version 1 request has its own. The connections belong to the
    event loop of the first call. A call in another loop makes new ones, if the first loop no longer runs.
    ``token`` goes with the first request of each connection.
    """

    def __init__(
        self,
        server: Address | EmbeddedServer,
        protocol: ProtocolVersion,
        timeout: Timeout,
        max_reply_size: int,
        *,
        token: str | None = None,
    ) -> None:
        self._server = server
        self._protocol: ProtocolVersion = protocol
        self._timeout = timeout
        self._max_reply_size = max_reply_size
        self._token = token
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connections: list[AsyncConnection] = []
        self._attempt: asyncio.Task[AsyncConnection] | None = None
        self._closed = False
        _POOLS.add(self)

    @property
    def in_use(self) -> bool:
        """Whether a connection or an embedded server would be left behind without ``close``."""
        server_runs = isinstance(self._server, EmbeddedServer) and self._server.running
        return server_runs or any(not connection.ended for connection in self._connections)

    async def call(
        self, request: ClientRequest, source: Source | None = None, on_sent: OnSent | None = None
    ) -> PendingRequest:
        """Send a request and wait until it ends.

        It is sent once more if an idle connection turns out to have been closed by the server.
        """
        resent = False
        while True:
            connection = await self.connection()
            try:
                pending = await connection.call(request, source, on_sent)
            finally:
                if self._protocol == 1:
                    await connection.close()
            if pending is None:
                continue  # the connection ended while this call waited to send
            if not pending.may_resend or resent:
                return pending
            resent = True
            if source is not None:
                source.rewind()

    async def connection(self) -> AsyncConnection:
        """Return a usable connection; calls that need one at the same time share the attempt to make it."""
        self._enter_loop()
        if self._protocol == 1:
            return await self._connect()
        for connection in self._connections:
            if connection.usable:
                return connection
        if self._attempt is None:
            self._attempt = asyncio.create_task(self._connect())
            self._attempt.add_done_callback(self._end_attempt)
        # A call that is cancelled leaves the attempt to the others.
        return await asyncio.shield(self._attempt)

    async def close(self) -> None:
        """Close the connections and stop an embedded server. May be called again."""
        self._enter_loop()
        self._closed = True
        connections, self._connections = self._connections, []
        for connection in connections:
            await connection.close()
        if isinstance(self._server, EmbeddedServer):
            await asyncio.to_thread(self._server.stop)

    def release(self) -> None:
        """Close without waiting for the connections, for a client that is garbage-collected."""
        self._closed = True
        connections, self._connections = self._connections, []
        if self._loop is not None and not self._loop.is_closed():
            for connection in connections:
                self._loop.call_soon_threadsafe(connection.abort)
        if isinstance(self._server, EmbeddedServer):
            self._server.stop()

    def forget(self) -> None:
        """In a forked child: leave the connections to the parent; the next call makes its own."""
        self._loop, self._connections, self._attempt = None, [], None
        if isinstance(self._server, EmbeddedServer):
            self._server.forget()

    def _enter_loop(self) -> None:
        """Forget the connections of an earlier event loop; raise ``RuntimeError`` if it is still running."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "an AsyncClient needs a running asyncio event loop; elsewhere, with trio for example, use "
                "Client in a thread"
            ) from None
        if loop is self._loop:
            return
        if self._loop is not None and self._loop.is_running():
            raise RuntimeError("this client is in use in another event loop; make one for each loop")
        self._loop, self._connections, self._attempt = loop, [], None

    def _end_attempt(self, attempt: "asyncio.Task[AsyncConnection]") -> None:
        if self._attempt is attempt:
            self._attempt = None
        if not attempt.cancelled():
            attempt.exception()  # marks it as retrieved: perhaps no call waits for it any more

    async def _connect(self) -> AsyncConnection:
        if self._closed:
            raise RuntimeError("the client is closed")
        address = self._server
        if isinstance(address, EmbeddedServer):
            address = await asyncio.to_thread(address.start)
        connection = await AsyncConnection.connect(
            address, self._protocol, self._timeout, self._max_reply_size, token=self._token
        )
        self._connections = [one for one in self._connections if not one.ended]
        self._connections.append(connection)
        if self._closed:
            await self.close()
            raise RuntimeError("the client was closed while it connected")
        return connection


_POOLS: "weakref.WeakSet[AsyncPool]" = weakref.WeakSet()


def _forget_all() -> None:
    for pool in list(_POOLS):
        pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
