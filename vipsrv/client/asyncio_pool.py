"""The connections of an asyncio client: made when a call needs one, shared by calls, replaced when lost."""

import asyncio
import time
from functools import partial

from vipsrv.address import Address
from vipsrv.client.asyncio_connection import AsyncConnection
from vipsrv.client.core import PendingRequest
from vipsrv.client.embedded import EmbeddedServer
from vipsrv.client.pool import ConnectionPool
from vipsrv.client.requests import PING, ClientRequest, ProtocolVersion
from vipsrv.client.sources import OnSent, Source
from vipsrv.client.timeouts import Timeout
from vipsrv.client.tls import ClientTls
from vipsrv.errors import ConnectionLost, RequestError, VipsrvError


class AsyncPool(ConnectionPool[AsyncConnection]):
    """The connections of an asyncio client.

    They belong to the event loop of the first call. A call in another loop makes new ones, if the first loop
    no longer runs.
    """

    def __init__(
        self,
        server: Address | EmbeddedServer,
        protocol: ProtocolVersion,
        timeout: Timeout,
        max_reply_size: int,
        *,
        token: str | None = None,
        tls: ClientTls | None = None,
        most: int = 1,
    ) -> None:
        super().__init__(server, protocol, timeout, max_reply_size, token=token, tls=tls, most=most)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._attempt: asyncio.Task[AsyncConnection] | None = None
        self._check: asyncio.Task[None] | None = None  # whether the server still works

    async def call(
        self, request: ClientRequest, source: Source | None = None, on_sent: OnSent | None = None
    ) -> PendingRequest:
        """Send a request and wait until it ends."""
        while True:
            self._enter_loop()
            best, another = self._best()
            connection = await self.connection() if best is None or another else best
            connection.calls += self._counted
            try:
                pending = await connection.call(request, source, on_sent)
            finally:
                connection.calls -= self._counted
                if self._protocol == 1:
                    await connection.close()
            if pending is not None:  # otherwise the connection ended while this call waited to send
                return pending

    async def connection(self) -> AsyncConnection:
        """Return a usable connection; calls that need one at the same time share the attempt to make it."""
        self._enter_loop()
        if self._protocol == 1:
            return await self._connect()
        while True:
            best, another = self._best()
            if best is not None and not another:
                return best
            is_ours = self._attempt is None
            if self._attempt is None:
                self._attempt = asyncio.create_task(self._connect())
                self._attempt.add_done_callback(self._end_attempt)
            # A call that is cancelled leaves the attempt to the others.
            try:
                made = await asyncio.shield(self._attempt)
            except VipsrvError:
                if best is None or not best.usable:
                    raise
                return best
            if is_ours or self._most == 1:
                return made

    async def probe(self) -> None:
        """Ask the server over a connection of its own whether it takes requests. Raises ``VipsrvError``."""
        self._enter_loop()
        self._check_open()
        address = self.server
        if isinstance(address, EmbeddedServer):
            address = await asyncio.to_thread(address.start)
        await self._probe(address)

    async def _probe(self, address: Address) -> None:
        connection = await AsyncConnection.connect(
            address,
            self._protocol,
            self._probe_timeout,
            self._max_reply_size,
            token=self._token,
            tls=self._tls,
        )
        try:
            pending = await connection.call(PING, None, None)
            if pending is None:
                raise ConnectionLost(f"the connection to {address} was lost: closed at once")
            pending.result()
        finally:
            await connection.close()

    def _doubt(self, address: Address) -> None:
        """Find out whether a server that accepts nothing works; if not, end what is in flight there."""
        if self._check is None and not self._closed:
            self._check = asyncio.create_task(self._give_up_unless_it_works(address))

    async def _give_up_unless_it_works(self, address: Address) -> None:
        began = time.monotonic()
        try:
            await self._probe(address)
        except RequestError:
            return  # it has answered
        except VipsrvError as error:
            for connection in self._connections:
                if not connection.heard_since(began):
                    connection.give_up(f"does not work any more: {error}")
        finally:
            self._check = None

    async def close(self) -> None:
        """Close the connections and stop an embedded server. May be called again."""
        self._enter_loop()
        if self._check is not None:
            self._check.cancel()
            await asyncio.wait([self._check])
        for connection in self._take_connections():
            await connection.close()
        if isinstance(self.server, EmbeddedServer):
            await asyncio.to_thread(self.server.stop)

    def release(self) -> None:
        """Close without waiting for the connections, for a client that is garbage-collected."""
        connections = self._take_connections()
        if self._loop is not None and not self._loop.is_closed():
            for connection in connections:
                self._loop.call_soon_threadsafe(connection.abort)
        self._stop_server()

    def forget(self) -> None:
        """In a forked child: leave the connections to the parent; the next call makes its own."""
        self._loop, self._connections, self._attempt, self._check = None, [], None, None
        self._forget_server()

    def _enter_loop(self) -> None:
        """Forget the connections of an earlier event loop; raise ``RuntimeError`` if it is still running."""
        loop = running_loop()
        if loop is self._loop:
            return
        if self._loop is not None and self._loop.is_running():
            raise RuntimeError("this client is in use in another event loop; make one for each loop")
        self._loop, self._connections, self._attempt, self._check = loop, [], None, None

    def _end_attempt(self, attempt: "asyncio.Task[AsyncConnection]") -> None:
        if self._attempt is attempt:
            self._attempt = None
        if not attempt.cancelled():
            attempt.exception()  # marks it as retrieved: perhaps no call waits for it any more

    async def _connect(self) -> AsyncConnection:
        self._check_open()
        address = self.server
        if isinstance(address, EmbeddedServer):
            address = await asyncio.to_thread(address.start)
        connection = await AsyncConnection.connect(
            address, self._protocol, self._timeout, self._max_reply_size, token=self._token, tls=self._tls
        )
        connection.on_doubt = partial(self._doubt, address)
        self._keep(connection)
        if self._closed:
            await self.close()
            raise RuntimeError("the client was closed while it connected")
        return connection


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop that runs this code. Raises ``RuntimeError`` that says what is needed."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "an AsyncClient needs a running asyncio event loop; elsewhere, with trio for example, use "
            "Client in a thread"
        ) from None
