"""The asyncio client."""

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, Unpack

from vipsrv.client.address import server_address
from vipsrv.client.aio_connection import AsyncConnection
from vipsrv.client.core import Exchange
from vipsrv.client.requests import (
    HELLO,
    INFO,
    PING,
    Protocol,
    Request,
    ResizeArguments,
    check_size,
    needs_version_2,
    resize_all_request,
    resize_request,
)
from vipsrv.client.results import (
    ResizeResult,
    ResizeResults,
    ServerInfo,
    image_info,
    resize_results,
    server_info,
)
from vipsrv.client.sources import ImageSource, OnSent, Source, open_source
from vipsrv.client.timeouts import Timeout
from vipsrv.options import ImageInfo, ResizeOptions
from vipsrv.protocol import DEFAULT_HOST, DEFAULT_PORT


class AsyncClient:
    """A client for a server at ``host`` and ``port``, or at ``address="unix:/path"``; for one event loop.

    Concurrent calls share one connection over version 2, which is made by the first call, and do not wait for
    each other's replies. With ``protocol=1``, for old servers, each request has a connection of its own. A
    connection that was lost is made anew by the next call. A call that is cancelled tells the server to stop.

    Besides what each method names, they raise ``ConnectFailed``, ``ConnectionLost``, ``ClientTimeout``,
    ``ProtocolError`` and the subclasses of ``RequestError`` (all in ``vipsrv.errors``), and ``RuntimeError``
    after ``close``.
    """

    def __init__(
        self,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        *,
        address: str | None = None,
        protocol: Protocol = 2,
        timeout: Timeout = Timeout(),  # noqa: B008 - a frozen value
    ) -> None:
        self._address = server_address(host, port, address)
        self._protocol: Protocol = protocol
        self._timeout = timeout
        self._connections: list[AsyncConnection] = []
        self._attempt: asyncio.Task[AsyncConnection] | None = None
        self._closed = False

    async def resize(
        self, image: ImageSource, *, on_sent: OnSent | None = None, **options: Unpack[ResizeArguments]
    ) -> ResizeResult:
        """Resize an image: bytes, a path, or a binary file object, which is sent from where it stands.

        The options are those of ``ResizeArguments``; ``width`` and ``height`` are pixels. ``on_sent`` is
        called with the bytes of the image that have been sent so far. Files are read in a thread.

        Raises ``ValueError`` for options or an image that make no sense and ``OSError`` for a file that
        cannot be read.
        """
        request = resize_request(options, self._protocol)
        return (await self._resize(request, image, on_sent)).only()

    async def resize_all(
        self,
        image: ImageSource,
        outputs: Sequence[ResizeOptions],
        *,
        deadline_ms: int | None = None,
        on_sent: OnSent | None = None,
    ) -> ResizeResults:
        """Make several pictures of an image that is sent and decoded once.

        ``deadline_ms`` holds for all of them together; they come together or not at all. Raises as ``resize``
        does.
        """
        request = resize_all_request(outputs, deadline_ms, self._protocol)
        return await self._resize(request, image, on_sent)

    async def info(self, image: ImageSource) -> ImageInfo:
        """What the header of an image says, without decoding it. Raises as ``resize`` does."""
        needs_version_2("info", self._protocol)
        with open_source(image) as source:
            return image_info((await self._exchange(INFO, source)).result())

    async def ping(self) -> float:
        """Seconds to the server and back; a connection that has to be made first is not counted."""
        needs_version_2("ping", self._protocol)
        await self._connection()
        started = time.monotonic()
        (await self._exchange(PING)).result()
        return time.monotonic() - started

    async def hello(self) -> ServerInfo:
        """What the server says of itself."""
        needs_version_2("hello", self._protocol)
        return server_info((await self._exchange(HELLO)).result())

    async def aclose(self) -> None:
        """Drop the connection; calls in progress end with ``ConnectionLost``. May be called again."""
        self._closed = True
        connections, self._connections = self._connections, []
        for connection in connections:
            await connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _resize(self, request: Request, image: ImageSource, on_sent: OnSent | None) -> ResizeResults:
        started = time.monotonic()
        with open_source(image) as source:
            check_size(source.size, self._protocol)
            exchange = await self._exchange(request, source, on_sent)
            reply = exchange.result()
        return resize_results(
            request,
            reply,
            size=source.size,
            sent=len(exchange.head) + source.size,
            elapsed=time.monotonic() - started,
        )

    async def _exchange(
        self, request: Request, source: Source | None = None, on_sent: OnSent | None = None
    ) -> Exchange:
        """Send and wait; once more where an idle connection turns out to have been closed by the server."""
        resent = False
        while True:
            connection = await self._connection()
            try:
                exchange = await connection.call(request, source, on_sent)
            finally:
                if self._protocol == 1:
                    await connection.close()
            if exchange is None:
                continue  # it ended while this call waited for its turn to send
            if not exchange.may_resend or resent:
                return exchange
            resent = True
            if source is not None:
                source.rewind()

    async def _connection(self) -> AsyncConnection:
        """One that is usable. Who needs one at the same time shares the attempt to make it, and its error."""
        if self._protocol == 1:
            return await self._connect()
        for connection in self._connections:
            if connection.usable:
                return connection
        if self._attempt is None:
            self._attempt = asyncio.create_task(self._connect())
            self._attempt.add_done_callback(self._attempted)
        # One that is cancelled leaves the attempt to the others.
        return await asyncio.shield(self._attempt)

    def _attempted(self, attempt: "asyncio.Task[AsyncConnection]") -> None:
        self._attempt = None
        if not attempt.cancelled():
            attempt.exception()  # maybe nobody waits for it any more

    async def _connect(self) -> AsyncConnection:
        if self._closed:
            raise RuntimeError("the client is closed")
        connection = await AsyncConnection.connect(self._address, self._protocol, self._timeout)
        self._connections = [one for one in self._connections if not one.ended]
        self._connections.append(connection)
        if self._closed:
            await self.aclose()
            raise RuntimeError("the client was closed while it connected")
        return connection
