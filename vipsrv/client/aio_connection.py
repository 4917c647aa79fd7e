"""One connection of the asyncio client: a protocol that feeds the core, and turns to write.

An image in a file is read in a thread, piece by piece. The loop's own ``sendfile`` would stop reading from
the socket meanwhile, so a refusal would not be seen, and a server that waits for its replies to be read would
never take the rest.
"""

import asyncio
import socket
from typing import Self, cast

from vipsrv.address import Address
from vipsrv.client.address import connect_error, reason
from vipsrv.client.core import ClientCore, Exchange
from vipsrv.client.requests import Protocol, Request
from vipsrv.client.sources import PIECE_SIZE, OnSent, Source
from vipsrv.client.timeouts import Timeout
from vipsrv.errors import ClientTimeout, ConnectFailed


class AsyncConnection(asyncio.Protocol):
    """A connection, once ``connect`` has made it."""

    def __init__(self, peer: str, protocol: Protocol, timeout: Timeout) -> None:
        self._timeout = timeout
        self._peer = peer
        self._core = ClientCore(protocol, peer)
        self._turn = asyncio.Lock()
        self._cancels: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._ended = asyncio.Event()
        self._transport: asyncio.Transport

    @classmethod
    async def connect(
        cls,
        address: Address,
        protocol: Protocol,
        timeout: Timeout,  # noqa: ASYNC109 - a value of several, handed on
    ) -> Self:
        """A connection that stands. Raises ``ConnectFailed`` or ``ClientTimeout``."""
        loop = asyncio.get_running_loop()
        connection = cls(str(address), protocol, timeout)
        try:
            async with asyncio.timeout(timeout.connect):
                if not address.path:
                    await loop.create_connection(lambda: connection, address.host, address.port)
                elif not hasattr(socket, "AF_UNIX"):
                    raise ConnectFailed(f"no connection to {address}: this system has no unix sockets")
                else:
                    await loop.create_unix_connection(lambda: connection, address.path)
        except (OSError, UnicodeError) as error:
            raise connect_error(error, address, timeout) from error
        return connection

    @property
    def usable(self) -> bool:
        """Whether a further request may go over it."""
        return self._core.usable

    @property
    def ended(self) -> bool:
        """Whether its transport is gone."""
        return self._ended.is_set()

    async def call(self, request: Request, source: Source | None, on_sent: OnSent | None) -> Exchange | None:
        """Send a request and wait for its end; ``None`` if the connection ended before its turn came.

        Raises ``ClientTimeout``, and ``OSError`` where the image cannot be read.
        """
        done = asyncio.Event()
        async with self._turn:
            if self._core.superseded:
                return None
            exchange = self._core.start(request, source.size if source else 0, done.set)
            if exchange.done:
                return exchange
            complete = False
            try:
                complete = await self._send_request(exchange, source, on_sent)
            except BaseException:
                self._core.retire()
                self._abandon(exchange)
                raise
            finally:
                self._core.end_sending(complete=complete)
                self._settle()
        self._settle()
        try:
            async with asyncio.timeout(self._timeout.reply):
                await done.wait()
        except TimeoutError:
            self._abandon(exchange)
            raise ClientTimeout(f"{self._peer} has not answered within {self._timeout.reply} s") from None
        except BaseException:
            self._abandon(exchange)
            raise
        return exchange

    async def close(self) -> None:
        """Drop the connection: what is in flight ends with ``ConnectionLost``."""
        self._core.close()
        self._settle()
        await self._ended.wait()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands; asyncio has switched on TCP_NODELAY."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of replies."""
        self._core.receive_data(data)
        self._settle()

    def eof_received(self) -> None:
        """The server has closed its side; the transport then closes ours."""
        self._core.receive_eof()
        self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, however it came."""
        self._core.lost(reason(exc) if exc else "closed")
        self._writable.set()
        self._ended.set()

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The transport's buffer has emptied."""
        self._writable.set()

    # Sending

    async def _send_request(self, exchange: Exchange, source: Source | None, on_sent: OnSent | None) -> bool:
        """Whether the whole request is on its way.

        A broken connection is no error here: the core knows what it was, be it a refusal.
        """
        head = exchange.head
        while True:
            piece = await self._next_piece(source)
            await self._until_writable()
            if self._core.stop_sending(exchange):
                return False
            self._transport.write(b"".join((head, piece)) if head else piece)
            head = b""
            exchange.unsent -= len(piece)
            if source is not None and on_sent is not None:
                on_sent(source.size - exchange.unsent)
            if not exchange.unsent:
                return True

    async def _next_piece(self, source: Source | None) -> bytes | memoryview:
        if source is None:
            return b""
        if source.in_memory:
            return source.read(PIECE_SIZE)
        reading = asyncio.ensure_future(asyncio.to_thread(source.read, PIECE_SIZE))
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            # The file must not be closed under the thread that reads it.
            await asyncio.wait([reading])
            raise

    async def _until_writable(self) -> None:
        # A turn of the loop in any case: a refusal is to be seen even while the socket takes all it is given.
        await asyncio.sleep(0)
        while not self._writable.is_set():
            unsent, received = self._transport.get_write_buffer_size(), self._core.received
            try:
                async with asyncio.timeout(self._timeout.send):
                    await self._writable.wait()
            except TimeoutError:
                # A server with enough in flight stops reading until it has answered some: that is no stall.
                if self._transport.get_write_buffer_size() == unsent and self._core.received == received:
                    text = f"{self._peer} has not taken any of the request for {self._timeout.send} s"
                    raise ClientTimeout(text) from None

    def _abandon(self, exchange: Exchange) -> None:
        """Let the server know that nobody waits any more, now or after the image that is being sent."""
        cancel = self._core.abandon(exchange)
        if cancel is not None:
            self._cancels.append(cancel)
        self._settle()

    def _settle(self) -> None:
        """Do what is due: send the CANCELs, or drop the connection if nobody has any use for it."""
        if self._core.over:
            self._transport.abort()
        elif self._cancels and not self._turn.locked() and self._core.usable:
            self._transport.write(b"".join(self._cancels))
            self._cancels.clear()
