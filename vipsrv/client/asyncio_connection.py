"""One connection of the asyncio client: an asyncio protocol over the core; one task sends at a time.

An image in a file is read in a thread, piece by piece. The event loop's ``sendfile`` would stop reading from
the socket meanwhile: a refusal would go unseen, and a server that waits for its replies to be read would
never accept the rest.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Self, cast

from vipsrv.address import Address
from vipsrv.client.core import FINISH_IF_LEFT, ClientCore, PendingRequest
from vipsrv.client.requests import ClientRequest, ProtocolVersion
from vipsrv.client.server_address import connect_error, handshake_error, reason
from vipsrv.client.silence import ASK_AFTER, Action, Silence, has_arrived, queued_bytes
from vipsrv.client.sources import PIECE_SIZE, OnSent, Source
from vipsrv.client.timeouts import MAX_SECONDS, Timeout
from vipsrv.client.tls import ClientTls, tls_fault
from vipsrv.errors import ClientTimeout, ConnectFailed

WITH_HEAD = 16 * 1024
"""Bytes of an image that are sent together with the head of its request."""

UNIX_SEND_BUFFER = 2**20
"""Bytes that a unix socket is asked to hold: an image that does not fit is copied and sent in parts."""

RECEIVE_SIZE = 256 * 1024
"""Bytes that are received at a time, into one buffer: most replies arrive as a whole."""


class AsyncConnection(asyncio.BufferedProtocol):
    """A connection; ``connect`` makes one that is open."""

    def __init__(
        self,
        peer: str,
        protocol: ProtocolVersion,
        timeout: Timeout,
        max_reply_size: int,
        *,
        token: str | None = None,
        tls: ClientTls | None = None,
    ) -> None:
        self._timeout = timeout
        self._peer = peer
        self._core = ClientCore(protocol, peer, max_reply_size=max_reply_size, token=token)
        self._buffer = memoryview(bytearray(RECEIVE_SIZE))
        self._turn = asyncio.Lock()
        self._cancels: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._ended = asyncio.Event()
        self._transport: asyncio.Transport
        self._tls = tls  # until its session is kept
        self._silence = None if timeout.patience is None or protocol == 1 else Silence(timeout.patience)
        self._handed = 0  # bytes that the transport was given
        self._waiting: dict[asyncio.Future[None], float] = {}  # since when each request waits for its reply
        self._timer: asyncio.TimerHandle | None = None
        self.calls = 0
        """How many calls use it, for its pool."""
        self.on_doubt: Callable[[], None] | None = None
        """Is called when the server should be asked whether it works, over another connection."""

    @classmethod
    async def connect(
        cls,
        address: Address,
        protocol: ProtocolVersion,
        timeout: Timeout,  # noqa: ASYNC109 - several timeouts for later steps
        max_reply_size: int,
        *,
        token: str | None = None,
        tls: ClientTls | None = None,
    ) -> Self:
        """Connect. Raises ``ConnectFailed`` or ``ClientTimeout``."""
        loop = asyncio.get_running_loop()
        connection = cls(str(address), protocol, timeout, max_reply_size, token=token, tls=tls)
        try:
            async with asyncio.timeout(timeout.connect):
                if not address.path:
                    await loop.create_connection(
                        lambda: connection,
                        address.host,
                        address.port,
                        ssl=None if tls is None else tls.context,
                        server_hostname=None if tls is None else tls.server_name,
                        # Without this, asyncio's own 60 seconds would end it, too.
                        ssl_handshake_timeout=None if tls is None else MAX_SECONDS,
                    )
                elif not hasattr(socket, "AF_UNIX"):
                    raise ConnectFailed(f"no connection to {address}: this system has no unix sockets")
                else:
                    await loop.create_unix_connection(lambda: connection, address.path)
        except (OSError, UnicodeError) as error:
            describe = connect_error if tls is None else handshake_error
            raise describe(error, address, timeout) from error
        return connection

    @property
    def usable(self) -> bool:
        """Whether another request may be sent over it."""
        return self._core.usable

    @property
    def ended(self) -> bool:
        """Whether its transport is closed."""
        return self._ended.is_set()

    def retire(self) -> None:
        """Send nothing more over it, and close it when all that is in flight has ended."""
        self._core.retire()
        self._settle()

    def heard_since(self, when: float) -> bool:
        """Whether the server has shown a sign of life since a time by ``time.monotonic``."""
        heard = self._silence is not None and self._silence.heard >= when
        return heard or has_arrived(self._transport.get_extra_info("socket").fileno())

    def give_up(self, reason: str) -> None:
        """End the requests in flight, because the server does not work any more."""
        self._core.give_up(reason)
        self._settle()

    async def call(
        self, request: ClientRequest, source: Source | None, on_sent: OnSent | None
    ) -> PendingRequest | None:
        """Send a request and wait until it ends; ``None`` if the connection ended before it could be sent.

        Raises ``ClientTimeout``, and ``OSError`` if the image cannot be read.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def end() -> None:
            if not ended.done():
                ended.set_result(None)

        async with self._turn:
            if self._core.superseded:
                return None
            pending = self._core.start(request, source.unread if source else 0, end)
            if pending.done:
                return pending
            try:
                complete = await self._send_request(pending, source, on_sent)
            except BaseException:
                self._core.end_sending(complete=False)
                self._abandon(pending)
                raise
            self._core.end_sending(complete=complete)
        self._settle()
        since = time.monotonic()
        self._waiting[ended] = since
        if self._timer is None:
            self._set_timer(since)
        try:
            await ended
        except BaseException:
            self._abandon(pending)
            raise
        finally:
            self._waiting.pop(ended, None)
        if not pending.done:
            self._abandon(pending)
            raise ClientTimeout(f"{self._peer} has not answered within {self._timeout.reply} s")
        return pending

    def _tick(self) -> None:
        """Look after the requests that wait for their replies; one timer does so for all of them."""
        self._timer = None
        reply, now = self._timeout.reply, time.monotonic()
        for ended, since in list(self._waiting.items()):
            if reply is None or now < since + reply:
                break  # those that follow were sent later
            if not ended.done():
                ended.set_result(None)
            del self._waiting[ended]
        self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        if not self._waiting or self._ended.is_set():
            return
        oldest, reply = next(iter(self._waiting.values())), self._timeout.reply
        pause = oldest + ASK_AFTER - now
        if pause <= 0:
            pause = self._look(oldest)
        if reply is not None:
            pause = min(pause, max(0.0, oldest + reply - now))
        self._timer = asyncio.get_running_loop().call_later(pause, self._tick)

    def _look(self, since: float) -> float:
        """Ask a server that is silent, or give it up; return after how many seconds to look again."""
        if self._silence is None:
            return MAX_SECONDS
        held = self._transport.get_write_buffer_size()
        descriptor = self._transport.get_extra_info("socket").fileno()
        queued = queued_bytes(descriptor)
        unsent = held + (queued or 0)
        action, wait = self._silence.look(
            since,
            accepted=self._handed - unsent,
            queued=None if queued is None else unsent,
            can_ask=self._core.may_ask and not self._turn.locked(),
            arrived=has_arrived(descriptor),
        )
        if action is Action.ASK:
            self._write(self._core.ask())
        elif action is Action.DOUBT and self.on_doubt is not None:
            self.on_doubt()
        elif action is Action.GIVE_UP:
            self.give_up(f"has been silent and has not answered a PING within {self._timeout.patience} s")
        return wait

    def _write(self, data: bytes | memoryview) -> None:
        self._transport.write(data)
        self._handed += len(data)

    async def close(self) -> None:
        """Close the connection: requests in flight end with ``ConnectionLost``."""
        self.abort()
        await self._ended.wait()

    def abort(self) -> None:
        """Close the connection without waiting until it is closed."""
        self._core.close()
        self._settle()

    # The methods that asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; asyncio has switched on TCP_NODELAY."""
        self._transport = cast(asyncio.Transport, transport)
        connected = transport.get_extra_info("socket")
        if connected.family == getattr(socket, "AF_UNIX", None):
            # TCP adapts its own. The system may allow less.
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIX_SEND_BUFFER)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the buffer is as large as it is
        """Return the buffer for the next bytes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Process bytes of replies."""
        if self._tls is not None:
            self._tls.keep_session(self._transport.get_extra_info("ssl_object"))
            self._tls = None
        self._core.receive_data(self._buffer[:nbytes])
        if self._silence is not None:
            self._silence.heard = time.monotonic()
        self._settle()

    def eof_received(self) -> None:
        """Note that the server has closed its side; the transport then closes ours."""
        self._core.receive_eof()
        self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        """End every request in flight, for any reason of the loss."""
        fault = None if exc is None else tls_fault(exc, self._peer)
        if fault is None:
            self._core.lost(reason(exc) if exc else "closed")
        else:
            self._core.lost_tls(fault)
        self._writable.set()
        self._ended.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pause_writing(self) -> None:
        """Stop sending while the transport's buffer is full."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Send again: the transport's buffer has emptied."""
        self._writable.set()

    # Sending

    async def _send_request(
        self, pending: PendingRequest, source: Source | None, on_sent: OnSent | None
    ) -> bool:
        """Send a request; return whether all of it was handed to the transport.

        A broken connection is not an error here: the core has the reason, for example a refusal.
        """
        head = pending.head
        while True:
            size = PIECE_SIZE
            if on_sent is None and pending.unsent <= PIECE_SIZE + FINISH_IF_LEFT:
                size = pending.unsent  # the rest would be sent in any case
            piece = (
                source.read(size)
                if source is not None and source.in_memory
                else await self._next_piece(source, size)
            )
            if not head:
                # Let the loop run once, to see a refusal even while the socket accepts everything at once.
                await asyncio.sleep(0)
            if not self._writable.is_set():
                await self._until_writable()
            if self._core.stop_sending(pending):
                return False
            if head:
                # Not with all of the piece: to copy it takes longer than to send it separately.
                self._write(b"".join((head, piece[:WITH_HEAD])))
                head = b""
                if len(piece) > WITH_HEAD:
                    self._write(piece[WITH_HEAD:])
            else:
                self._write(piece)
            pending.unsent -= len(piece)
            if source is not None and on_sent is not None:
                on_sent(source.size - pending.unsent)
            if not pending.unsent:
                return True

    async def _next_piece(self, source: Source | None, size: int) -> bytes | memoryview:
        """Return the next piece of an image that is not in memory: read in a thread, or none."""
        if source is None:
            return b""
        reading = asyncio.ensure_future(asyncio.to_thread(source.read, size))
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            # The file must not be closed while the thread reads it.
            await asyncio.wait([reading])
            raise

    async def _until_writable(self) -> None:
        send, since, before = self._timeout.send, time.monotonic(), self._progress()
        while not self._writable.is_set():
            pause = self._look(since)
            if send is not None:
                pause = min(pause, max(0.0, since + send - time.monotonic()))
            try:
                async with asyncio.timeout(pause):
                    await self._writable.wait()
            except TimeoutError:
                # A server with many requests in flight stops reading until it has replied to some. While
                # replies arrive, the connection has not stalled.
                if self._progress() != before:
                    since, before = time.monotonic(), self._progress()
                elif send is not None and time.monotonic() >= since + send:
                    text = f"{self._peer} has not accepted any of the request for {send} s"
                    raise ClientTimeout(text) from None

    def _progress(self) -> tuple[int, int]:
        return self._transport.get_write_buffer_size(), self._core.received

    def _abandon(self, pending: PendingRequest) -> None:
        """Cancel the request at the server, now or after the image that is being sent."""
        cancel = self._core.abandon(pending)
        if cancel is not None:
            self._cancels.append(cancel)
        self._settle()

    def _settle(self) -> None:
        """Send all pending CANCELs, or close the connection if it is not needed any more."""
        if self._core.over:
            self._transport.abort()
        elif self._cancels and not self._turn.locked() and self._core.usable:
            self._write(b"".join(self._cancels))
            self._cancels.clear()
