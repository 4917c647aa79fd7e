"""The blocking client."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Self, Unpack

from vipsrv.client.address import server_address
from vipsrv.client.blocking_connection import Connection
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
from vipsrv.errors import VipsrvError
from vipsrv.options import ImageInfo, ResizeOptions
from vipsrv.protocol import DEFAULT_HOST, DEFAULT_PORT


class Client:
    """A client for a server at ``host`` and ``port``, or at ``address="unix:/path"``.

    It may be used from several threads: over version 2 their requests share one connection, which is made by
    the first call, and do not wait for each other's replies. With ``protocol=1``, for old servers, each
    request has a connection of its own. A connection that was lost is made anew by the next call.

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
        self._lock = threading.Lock()  # for the three below
        self._connections: list[Connection] = []
        self._attempt: Future[Connection | None] | None = None
        self._closed = False

    def resize(
        self, image: ImageSource, *, on_sent: OnSent | None = None, **options: Unpack[ResizeArguments]
    ) -> ResizeResult:
        """Resize an image: bytes, a path, or a binary file object, which is sent from where it stands.

        The options are those of ``ResizeArguments``; ``width`` and ``height`` are pixels. ``on_sent`` is
        called with the bytes of the image that have been sent so far.

        Raises ``ValueError`` for options or an image that make no sense and ``OSError`` for a file that
        cannot be read.
        """
        request = resize_request(options, self._protocol)
        return self._resize(request, image, on_sent).only()

    def resize_all(
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
        return self._resize(request, image, on_sent)

    def info(self, image: ImageSource) -> ImageInfo:
        """What the header of an image says, without decoding it. Raises as ``resize`` does."""
        needs_version_2("info", self._protocol)
        with open_source(image) as source:
            return image_info(self._exchange(INFO, source).result())

    def ping(self) -> float:
        """Seconds to the server and back; a connection that has to be made first is not counted."""
        needs_version_2("ping", self._protocol)
        self._connection()
        started = time.monotonic()
        self._exchange(PING).result()
        return time.monotonic() - started

    def hello(self) -> ServerInfo:
        """What the server says of itself."""
        needs_version_2("hello", self._protocol)
        return server_info(self._exchange(HELLO).result())

    def close(self) -> None:
        """Drop the connection; calls of other threads end with ``ConnectionLost``. May be called again."""
        with self._lock:
            self._closed = True
            connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _resize(self, request: Request, image: ImageSource, on_sent: OnSent | None) -> ResizeResults:
        started = time.monotonic()
        with open_source(image) as source:
            check_size(source.size, self._protocol)
            exchange = self._exchange(request, source, on_sent)
            reply = exchange.result()
        return resize_results(
            request,
            reply,
            size=source.size,
            sent=len(exchange.head) + source.size,
            elapsed=time.monotonic() - started,
        )

    def _exchange(
        self, request: Request, source: Source | None = None, on_sent: OnSent | None = None
    ) -> Exchange:
        """Send and wait; once more where an idle connection turns out to have been closed by the server."""
        resent = False
        while True:
            connection = self._connection()
            try:
                exchange = connection.call(request, source, on_sent)
            finally:
                if self._protocol == 1:
                    self._drop(connection)
            if exchange is None:
                continue  # it ended while this call waited for its turn to send
            if not exchange.may_resend or resent:
                return exchange
            resent = True
            if source is not None:
                source.rewind()

    def _connection(self) -> Connection:
        """One that is usable. Who needs one at the same time shares the attempt to make it, and its error."""
        if self._protocol == 1:
            return self._connect()
        while True:
            with self._lock:
                self._check_open()
                for connection in self._connections:
                    if connection.usable:
                        return connection
                attempt, is_ours = self._attempt or Future(), self._attempt is None
                self._attempt = attempt
            if is_ours:
                return self._attempt_to_connect(attempt)
            try:
                shared = attempt.result()
            except (VipsrvError, RuntimeError) as error:
                # Each its own, for each is raised in another thread.
                raise type(error)(*error.args) from error
            if shared is not None:
                return shared

    def _attempt_to_connect(self, attempt: "Future[Connection | None]") -> Connection:
        connection = None
        try:
            connection = self._connect()
        except (VipsrvError, RuntimeError) as error:
            attempt.set_exception(error)
            raise
        finally:
            with self._lock:
                self._attempt = None
            if not attempt.done():
                attempt.set_result(connection)  # none after a ctrl-C, which is nobody else's
        return connection

    def _connect(self) -> Connection:
        with self._lock:
            self._check_open()
        connection = Connection(self._address, self._protocol, self._timeout)
        with self._lock:
            if not self._closed:
                self._connections = [one for one in self._connections if not one.ended]
                self._connections.append(connection)
                return connection
        connection.close()
        raise RuntimeError("the client was closed while it connected")

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")

    def _drop(self, connection: Connection) -> None:
        connection.close()
        with self._lock:
            if connection in self._connections:
                self._connections.remove(connection)
