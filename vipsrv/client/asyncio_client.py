"""The asyncio clients."""

import time
import warnings
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self, Unpack

from vipsrv.client.asyncio_caller import AsyncCaller
from vipsrv.client.asyncio_pool import AsyncPool
from vipsrv.client.calls import OneServer, Server
from vipsrv.client.embedded import EmbeddedServer
from vipsrv.client.hedge import Hedge
from vipsrv.client.login_token import choose_token
from vipsrv.client.requests import (
    DEFAULT_MAX_REPLY_SIZE,
    HELLO,
    ClientRequest,
    ResizeAllRequests,
    check_connections,
    check_max_reply_size,
    check_version_1_size,
    info_request,
    resize_request,
    version_1_request,
)
from vipsrv.client.results import (
    DescribedImage,
    ResizeResult,
    ResizeResults,
    ServerInfo,
    Version1Result,
    image_info,
    resize_results,
    server_info,
    version_1_result,
)
from vipsrv.client.resume import RESUMABLE_FROM, OnResumed, ResumableUploads, UploadId
from vipsrv.client.retry import Retry
from vipsrv.client.server_address import server_address
from vipsrv.client.server_list import choose_servers
from vipsrv.client.server_names import Resolver, resolve
from vipsrv.client.sources import ImageSource, OnSent, open_source
from vipsrv.client.timeouts import Timeout
from vipsrv.client.tls import FilePath, TlsChoice, choose_tls
from vipsrv.options import Placeholder, PlaceholderName, ResizeArguments, ResizeOptions


class _ClosableClient:
    """Closes a client: in ``aclose``, at the end of an ``async with`` block, or with a warning."""

    _caller: AsyncCaller

    async def aclose(self) -> None:
        """Close the connection; calls in progress end with ``ConnectionLost``. May be called again."""
        await self._caller.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        caller = getattr(self, "_caller", None)  # missing if the constructor raised
        if caller is not None and caller.in_use:
            caller.release()
            warnings.warn(f"unclosed {type(self).__name__}", ResourceWarning, stacklevel=2, source=self)


class AsyncClient(_ClosableClient):
    """A client for a vipsrv server.

    ``host`` and ``port`` name the server; if one is left out, ``VIPSRV_HOST`` or ``VIPSRV_PORT`` replaces it,
    and otherwise 127.0.0.1 or 65432. For a unix socket, ``address`` or ``host`` is ``unix:/path``.
    ``AsyncClient.embedded()`` starts its own server.

    ``servers`` replaces them by several servers, as ``["a:65432", "tls://b:1", "unix:/x"]``; without any of
    these arguments ``VIPSRV_SERVERS`` may name them, separated by commas. A host name stands for all its
    addresses, which ``resolver`` finds. Each call goes to the less busy one of two that are chosen at random;
    a server that fails is left out until it answers a PING. To each there are up to ``connections``: one
    carries 32 requests at a time, so more of them pay for more requests in flight, and through a balancer.
    With a ``hedge``, an image that takes longer than usual goes to a second server, too.

    ``tls=True``, or an address ``tls://HOST:PORT``, encrypts the connection and checks that the server's
    certificate is for the host that was named. It has to be of an authority that this machine trusts, or of
    the one in the PEM file ``ca``. ``cert`` and ``key`` are PEM files for a server that asks its clients for
    a certificate. ``tls`` may also be an ``ssl.SSLContext``, which then decides all of that.

    ``token`` is for a server that requires one; if it is left out, it comes from ``VIPSRV_TOKEN`` or from the
    file that ``VIPSRV_TOKEN_FILE`` names. If the server refuses it, the methods raise ``Unauthorized``.

    Concurrent calls share one connection, which the first call makes, and do not wait for each other's
    replies. After a connection is lost, the next call makes a new one. A client is for one event loop at a
    time. Cancelling a call cancels its request at the server. Image files are read in a thread.

    An image of ``resumable_from`` bytes or more is sent so that it goes on where the connection broke, if the
    server offers that; ``None`` sends it from the start again. After an upload was cut, images from 256 KiB
    on are sent like that, too.

    A reply is held in memory. One with more than ``max_reply_size`` bytes of results, or with more than the
    options of its request can make, is refused with ``ProtocolError`` before it is received. Text of the
    server, such as the message of an error, has unprintable characters replaced by escapes.

    Besides the errors that each method names, the methods raise ``ConnectFailed``, ``ConnectionLost``,
    ``ClientTimeout``, ``ProtocolError`` and the subclasses of ``RequestError``, all of them
    ``vipsrv.VipsrvError``, and ``RuntimeError`` after ``aclose``.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        address: str | None = None,
        servers: Sequence[str] | None = None,
        connections: int = 1,
        resolver: Resolver = resolve,
        hedge: Hedge | None = None,
        timeout: Timeout = Timeout(),  # noqa: B008 - an immutable value
        retry: Retry = Retry(),  # noqa: B008 - an immutable value
        resumable_from: int | None = RESUMABLE_FROM,
        max_reply_size: int = DEFAULT_MAX_REPLY_SIZE,
        token: str | None = None,
        tls: TlsChoice = False,
        ca: FilePath | None = None,
        cert: FilePath | None = None,
        key: FilePath | None = None,
    ) -> None:
        most = check_max_reply_size(max_reply_size)
        chosen = choose_servers(
            host,
            port,
            address,
            servers,
            timeout=timeout,
            sends_again=retry.sends_again,
            tls=tls,
            ca=ca,
            cert=cert,
            key=key,
        )
        login, number = choose_token(token), check_connections(connections)

        def make_pool(server: Server) -> AsyncPool:
            secured = chosen.tls(server)
            return AsyncPool(server, 2, chosen.timeout, most, token=login, tls=secured, most=number)

        self._caller = AsyncCaller(
            chosen.servers, make_pool, retry=retry, timeout=timeout, resolver=resolver, hedge=hedge
        )
        self._requests = ResizeAllRequests()
        self._uploads = ResumableUploads(resumable_from, sends_again=retry.sends_again)

    @property
    def servers(self) -> tuple[str, ...]:
        """The addresses of the servers; those of host names are known after the first call."""
        return self._caller.addresses

    @classmethod
    def embedded(
        cls,
        *,
        timeout: Timeout = Timeout(),  # noqa: B008 - an immutable value
        retry: Retry = Retry(),  # noqa: B008 - an immutable value
        max_reply_size: int = DEFAULT_MAX_REPLY_SIZE,
        server: EmbeddedServer | None = None,
    ) -> Self:
        """Make a client that starts its own server, which runs on this machine until the client is closed.

        The first call starts the server and may raise ``StartFailed``. The server is configured by the
        ``VIPSRV_`` variables of the environment, except for its address, or is the ``server`` that is given.
        """
        client = cls.__new__(cls)
        most = check_max_reply_size(max_reply_size)
        decided = timeout.decided(several=False, sends_again=retry.sends_again)

        def make_pool(server: Server) -> AsyncPool:
            return AsyncPool(server, 2, decided, most)

        servers = OneServer(server or EmbeddedServer())
        client._caller = AsyncCaller(servers, make_pool, retry=retry, timeout=timeout)  # noqa: SLF001 - of this class
        client._requests = ResizeAllRequests()  # noqa: SLF001 - of this class
        client._uploads = ResumableUploads(None)  # noqa: SLF001 - what it keeps would end with it
        return client

    async def resize(
        self,
        image: ImageSource,
        options: ResizeOptions | None = None,
        *,
        on_sent: OnSent | None = None,
        upload_id: UploadId | None = None,
        on_resumed: OnResumed | None = None,
        **named: Unpack[ResizeArguments],
    ) -> ResizeResult:
        """Resize an image: bytes, a path, or a binary file object, which is read from its current position.

        The options are given by name, as in ``ResizeArguments``, or as one ``ResizeOptions``. ``width`` and
        ``height`` are pixels; with only one of them the image keeps its proportions. ``on_sent`` is called
        with the number of bytes of the image that have been sent so far.

        If the connection breaks during a large upload, the call goes on with what the server has not got yet.
        ``upload_id`` (32 hex digits, which nobody can guess) lets another call, perhaps of another process,
        go on with it. ``on_resumed`` is called with the number of bytes that the server has already.

        Raises ``ValueError`` for invalid options or an empty image, and ``OSError`` for a file that cannot be
        read.
        """
        return (
            await self._resize(resize_request(options, named), image, on_sent, upload_id, on_resumed)
        ).only()

    async def resize_all(
        self,
        image: ImageSource,
        outputs: Sequence[ResizeOptions],
        *,
        deadline_ms: int | None = None,
        request_id: str | None = None,
        traceparent: str | None = None,
        placeholder: Iterable[Placeholder | PlaceholderName] = (),
        on_sent: OnSent | None = None,
        upload_id: UploadId | None = None,
        on_resumed: OnResumed | None = None,
    ) -> ResizeResults:
        """Make several results from an image that is sent and decoded once.

        ``deadline_ms`` applies to all of them together; either all succeed or the call raises. ``request_id``
        and ``traceparent`` are for the server's log, and the rest is, as with ``resize``. Raises its errors.
        """
        request = self._requests.request(
            outputs,
            deadline_ms=deadline_ms,
            request_id=request_id,
            traceparent=traceparent,
            placeholder=placeholder,
        )
        return await self._resize(request, image, on_sent, upload_id, on_resumed)

    async def info(
        self, image: ImageSource, *, placeholder: Iterable[Placeholder | PlaceholderName] = ()
    ) -> DescribedImage:
        """Return what the header of an image states. Raises the errors of ``resize``.

        It is decoded only for a ``placeholder``: ``thumbhash``, ``blurhash``, ``dominant``, ``average``.
        """
        request = info_request(placeholder)
        with open_source(image) as source:
            upload = self._uploads.upload(request, source.size)
            answer = await self._caller.call(request, source, upload=upload)
            return image_info(answer.pending.result())

    async def ping(self) -> float:
        """Return the seconds of a round trip to the server, not counting the time to connect."""
        return await self._caller.ping()

    async def hello(self) -> ServerInfo:
        """Return the server's formats, fits and limits."""
        return server_info((await self._caller.call(HELLO)).pending.result())

    async def _resize(
        self,
        request: ClientRequest,
        image: ImageSource,
        on_sent: OnSent | None,
        upload_id: UploadId | None,
        on_resumed: OnResumed | None,
    ) -> ResizeResults:
        started = time.monotonic()
        with open_source(image) as source:
            upload = self._uploads.upload(request, source.size, upload_id=upload_id, on_resumed=on_resumed)
            answer = await self._caller.call(request, source, on_sent, upload=upload)
        return resize_results(request, answer, size=source.size, started=started)


class AsyncVersion1Client(_ClosableClient):
    """A client for old servers, which speak version 1 of the protocol only.

    It is constructed and used like ``AsyncClient``, for one server, and raises the same errors. Each request
    uses its own connection.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        address: str | None = None,
        timeout: Timeout = Timeout(),  # noqa: B008 - an immutable value
        retry: Retry = Retry(),  # noqa: B008 - an immutable value
        max_reply_size: int = DEFAULT_MAX_REPLY_SIZE,
        tls: TlsChoice = False,
        ca: FilePath | None = None,
        cert: FilePath | None = None,
        key: FilePath | None = None,
    ) -> None:
        most = check_max_reply_size(max_reply_size)
        server, secured = choose_tls(
            server_address(host, port, address), tls, ca=ca, cert=cert, key=key, alpn=False
        )

        def make_pool(server: Server) -> AsyncPool:
            return AsyncPool(server, 1, timeout, most, tls=secured)

        self._caller = AsyncCaller(OneServer(server), make_pool, retry=retry, timeout=timeout)

    async def resize(
        self, image: ImageSource, *, width: int, height: int, on_sent: OnSent | None = None
    ) -> Version1Result:
        """Stretch an image to a size in pixels; the result is a JPEG of quality 85.

        Everything else is as in ``AsyncClient.resize``.
        """
        started = time.monotonic()
        request = version_1_request(width, height)
        with open_source(image) as source:
            check_version_1_size(source.size)
            answer = await self._caller.call(request, source, on_sent)
        return version_1_result(request, answer, size=source.size, started=started)
