"""The protocol side of one client connection, without its socket: it matches replies to requests.

::

                   start(request)            receive_data(bytes)
    caller ──────► PendingRequest ─────────► reply or error set, on_done() called
                     │  head + body: the connection sends them
                     └─ abandon(): the caller has stopped waiting ─► CANCEL, for the connection to send

``BlockingConnection`` and ``AsyncConnection`` add the input and output.

A request that is refused, abandoned or fails while its image is being sent leaves the connection in the
middle of a message. Unless little is left to send, the connection is then retired: it accepts no further
request, and it is closed when the others in flight have been answered. So is one of a server that says in a
reply that it will close the connection.

Not safe for several threads: the connection holds a lock during every call, including that of ``on_done``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from vipsrv.client.requests import DEFAULT_MAX_REPLY_SIZE, HELLO, ClientRequest, ProtocolVersion
from vipsrv.client.silence import MOST_IN_FLIGHT
from vipsrv.errors import (
    BadRequest,
    ClientTimeout,
    ConnectionLost,
    Draining,
    ProtocolError,
    RequestError,
    TlsFailed,
    Unauthorized,
    VipsrvError,
)
from vipsrv.printable import printable_json
from vipsrv.protocol import (
    CLOSING,
    FIRST_ERROR_STATUS,
    REPLY,
    V1_REQUEST,
    BodyReceived,
    Event,
    Kind,
    MessageStarted,
    ReplyReader,
    pack_message,
    unpack_error,
    unpack_meta,
)

MAX_REQUEST_ID = 2**32 - 1

FINISH_IF_LEFT = 256 * 1024
"""Bytes: if no more than this is left of a refused request, it is sent to the end to keep the connection."""

MAX_META_DEPTH = 16
"""Lists and objects within each other in the meta of a reply that is accepted; a server sends three."""

HTTP = int.from_bytes(b"HTTP")
"""The size that a version 1 reply seems to announce if it is the beginning of an HTTP response."""

CONNECTION_ID = 0
"""The request id of a reply that concerns the whole connection; version 2 requests never use it."""


TLS_ALERTS = range(0x15030000, 0x15030500)
"""The sizes that a version 1 reply seems to announce if it is a TLS alert, of a server that speaks TLS."""


class _SpeaksHttp(ProtocolError):
    """What arrived is the beginning of an HTTP response."""


class _SpeaksTls(ProtocolError):
    """What arrived is a TLS alert."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A complete, successful reply. ``received`` is its bytes on the wire, headers included."""

    meta: dict[str, Any]
    body: bytes
    received: int


class PendingRequest:
    """A request that has been started; it ends with either ``reply`` or ``error`` set.

    ``head`` is sent in front of the image, of which ``unsent`` bytes remain; ``max_body`` is the most bytes
    that its reply may have. ``may_resend`` is set on a lost request if the server had closed an idle
    connection, so that it may be sent again over a new one. ``loss`` is the same object for all requests that
    were lost together with one connection.
    """

    __slots__ = (
        "error",
        "head",
        "hedged",
        "kind",
        "loss",
        "max_body",
        "may_resend",
        "on_done",
        "peer",
        "reply",
        "request_id",
        "unsent",
    )

    def __init__(
        self,
        kind: Kind,
        request_id: int,
        head: bytes,
        *,
        unsent: int,
        max_body: int,
        on_done: Callable[[], None],
    ) -> None:
        self.kind = kind
        self.request_id = request_id
        self.head = head
        self.unsent = unsent
        self.max_body = max_body
        self.on_done = on_done
        self.reply: Reply | None = None
        self.error: VipsrvError | None = None
        self.may_resend = False
        self.loss: object = None
        self.hedged = False
        """Whether it is the second attempt at another server, see ``Hedge``."""
        self.peer = ""
        """The server that it is sent to."""

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.reply is not None or self.error is not None

    @property
    def says_closing(self) -> bool:
        """Whether the reply says that the server is about to stop and others serve already."""
        return self.reply is not None and CLOSING in self.reply.meta

    def result(self) -> Reply:
        """Return the reply of a request that has ended, or raise its error."""
        if self.error is not None:
            raise self.error
        if self.reply is None:
            raise RuntimeError("the request has not ended")
        return self.reply


class CoreState(IntEnum):
    """The states of a connection, in order: it only moves forward, and may skip states."""

    OPEN = 0
    """Requests may be started."""
    RETIRED = 1
    """No further request may be started; those in flight may still be answered."""
    ENDED = 2
    """No reply can come any more: the connection is lost, or its single version 1 reply is complete."""
    CLOSED = 3
    """The client was closed."""


class ClientCore:
    """The requests of one connection to ``peer``, which is a name for error messages.

    With a ``token``, a HELLO that carries it goes in front of the first request. If the server refuses it,
    every request in flight ends with that error.

    ``max_reply_size`` is the most bytes that the body of a reply may have, unless the request itself implies
    less. ``received`` counts the bytes received so far. Request ids go from 1 to ``max_id``, and then from 1
    again.
    """

    def __init__(
        self,
        protocol: ProtocolVersion,
        peer: str,
        *,
        max_reply_size: int = DEFAULT_MAX_REPLY_SIZE,
        max_id: int = MAX_REQUEST_ID,
        token: str | None = None,
    ) -> None:
        self._protocol = protocol
        self._peer = peer
        self._reader = ReplyReader(unpack_printable_meta)
        self._in_flight: dict[int, PendingRequest] = {}
        self._abandoned: dict[int, int] = {}  # the most bytes that the reply to each may have
        self._max_reply_size = max_reply_size
        self._max_id = max_id
        self._token = token if protocol != 1 else None
        self._login_id = CONNECTION_ID
        self._last_id = 0
        self._message: MessageStarted | None = None
        self._body = bytearray()  # grows with what arrives, whatever size was announced
        self._whole_body = b""  # of a reply whose body has arrived in one piece
        self._idle_since_reply = False
        self._sending: PendingRequest | None = None
        self._started = False
        self._state = CoreState.OPEN
        self._failure: Callable[[], VipsrvError] | None = None
        self.received = 0

    @property
    def usable(self) -> bool:
        """Whether another request may be started."""
        return self._state is CoreState.OPEN

    @property
    def closed(self) -> bool:
        """Whether no reply can come any more, so that the connection should close its socket."""
        return self._state >= CoreState.ENDED

    @property
    def superseded(self) -> bool:
        """Whether a request that has not been started belongs on another connection.

        The end of a connection fails only the requests started on it. Exceptions: the client was closed;
        or the server closed before any request was started, which it might do again on every connection.
        """
        if self._state is CoreState.ENDED:
            return self._started
        return self._state is CoreState.RETIRED

    @property
    def over(self) -> bool:
        """Whether the connection is not needed any more and should be closed."""
        if self._state >= CoreState.ENDED:
            return True
        return not self._in_flight and (
            self._state is CoreState.RETIRED
            or (self._sending is not None and self.stop_sending(self._sending))
        )

    @property
    def may_ask(self) -> bool:
        """Whether a PING may be sent now, and will be read."""
        return self.usable and self._sending is None and len(self._in_flight) <= MOST_IN_FLIGHT

    def ask(self) -> bytes:
        """Return a PING to send; its reply counts only as bytes that arrive."""
        ping_id = self._new_id()
        self._abandoned[ping_id] = 0
        return pack_message(Kind.PING, ping_id)

    def start(self, request: ClientRequest, body_size: int, on_done: Callable[[], None]) -> PendingRequest:
        """Start a request with ``body_size`` bytes of image; ``on_done`` is called once, when it ends.

        On a connection that has closed, it ends at once with the error that closed it; see ``superseded``.
        """
        if self._protocol == 1:
            request_id = CONNECTION_ID
            head = V1_REQUEST.pack(body_size, request.width, request.height)
        else:
            login = b"" if self._token is None else self._pack_login(self._token)
            request_id = self._new_id()
            head = pack_message(request.kind, request_id, request.packed_meta, body_size=body_size)
            if login:
                head = login + head
        pending = PendingRequest(
            request.kind,
            request_id,
            head,
            unsent=body_size,
            max_body=min(request.max_body, self._max_reply_size),
            on_done=on_done,
        )
        pending.peer = self._peer
        if self._failure is not None:
            pending.error = self._failure()
        else:
            self._started = True
            self._in_flight[request_id] = self._sending = pending
        return pending

    def stop_sending(self, pending: PendingRequest) -> bool:
        """Whether to stop sending its image, because it was refused or the connection is lost."""
        return pending.done and (self.closed or pending.unsent > FINISH_IF_LEFT)

    def end_sending(self, *, complete: bool) -> None:
        """Note that sending the last request has ended; if it is not ``complete``, no other can follow it."""
        self._sending = None
        if not complete:
            self.retire()

    def retire(self) -> None:
        """Start no further request; those in flight may still be answered."""
        self._move_to(CoreState.RETIRED)

    def abandon(self, pending: PendingRequest) -> bytes | None:
        """Ignore everything that still arrives for this request: its caller has stopped waiting.

        Return the CANCEL to send, or ``None`` if there is nothing to cancel or it cannot be sent: within an
        image that will not be completed, the end of the connection cancels it.
        """
        if self._in_flight.pop(pending.request_id, None) is None or self._protocol == 1:
            return None
        self._abandoned[pending.request_id] = pending.max_body
        if not self.usable:
            return None
        cancel_id = self._new_id()
        self._abandoned[cancel_id] = 0
        return pack_message(Kind.CANCEL, cancel_id, {"request_id": pending.request_id})

    def receive_data(self, data: bytes | memoryview) -> None:
        """Process received bytes. Bytes that are not a reply end every request with ``ProtocolError``."""
        self.received += len(data)
        self._idle_since_reply = False
        try:
            for event in self._reader.receive_data(data):
                self._handle(event)
                if self._state >= CoreState.ENDED:
                    break  # what follows does not matter
        except _SpeaksHttp:
            self._fail_with(f"{self._peer} speaks HTTP, not the protocol of vipsrv")
        except _SpeaksTls:
            self._fail_with(f"{self._peer} speaks TLS; use --tls (tls=True)")
        except ProtocolError as error:
            self._fail_with(
                f"{self._peer} sent something that is not a version {self._protocol} reply: {error}"
            )

    def receive_eof(self) -> None:
        """Note that the server has closed the connection."""
        if self.received:
            self.lost("closed by the server before the reply was complete")
        elif self._protocol != 1 and self._sending is not None:
            self.lost(
                "closed by the server before it had received the request; if it speaks version 1 only, use "
                "Version1Client or --protocol 1"
            )
        else:
            self.lost("closed by the server before it replied")

    def lost(self, reason: str) -> None:
        """End every request in flight with a ``ConnectionLost`` that states the ``reason``."""
        for pending in self._in_flight.values():
            pending.may_resend = self._idle_since_reply
        self._fail_all(lambda: ConnectionLost(f"the connection to {self._peer} was lost: {reason}"))

    def give_up(self, reason: str) -> None:
        """End every request in flight with a ``ClientTimeout``: the server does not work any more."""
        self._fail_all(lambda: ClientTimeout(f"{self._peer} {reason}"))

    def lost_tls(self, reason: str) -> None:
        """End every request in flight with a ``TlsFailed`` that states the ``reason``."""
        self._fail_all(lambda: TlsFailed(f"the connection to {self._peer} was lost: {reason}"))

    def close(self) -> None:
        """End the requests in flight, and any started later, because the client was closed."""
        self._move_to(CoreState.CLOSED)
        self._idle_since_reply = False
        self._failure = None
        self.lost("the client was closed")

    def _pack_login(self, token: str) -> bytes:
        """Return the HELLO with the token for the first request of the connection, and nothing later."""
        if self._started or self._failure is not None:
            return b""
        self._login_id = self._new_id()
        self._abandoned[self._login_id] = 0
        return pack_message(Kind.HELLO, self._login_id, {**HELLO.meta, "token": token})

    def _move_to(self, state: CoreState) -> None:
        self._state = max(self._state, state)

    def _new_id(self) -> int:
        self._last_id = self._last_id % self._max_id + 1
        while self._last_id in self._in_flight or self._last_id in self._abandoned:
            self._last_id = self._last_id % self._max_id + 1
        return self._last_id

    def _handle(self, event: Event) -> None:
        if isinstance(event, MessageStarted):
            self._check(event)
            self._message = event
        elif isinstance(event, BodyReceived):
            if self._message is not None and self._message.request_id in self._in_flight:
                if len(event.data) == self._message.body_size:
                    self._whole_body = bytes(event.data)
                else:
                    self._body += event.data
        elif self._message is not None:
            started, body = self._message, self._whole_body
            if self._body:
                body = bytes(self._body)
                self._body.clear()
            self._message, self._whole_body = None, b""
            self._complete(started, body)

    def _check(self, started: MessageStarted) -> None:
        """Check that a reply answers a request and is not too large. Raises ``ProtocolError``."""
        failed = started.status >= FIRST_ERROR_STATUS
        if started.version == 1 and started.body_size == HTTP:
            raise _SpeaksHttp
        if started.version == 1 and started.body_size in TLS_ALERTS:
            raise _SpeaksTls
        if started.version != self._protocol and not (failed and self._protocol == 1):
            raise ProtocolError(f"it replied in version {started.version}")
        if failed and started.request_id == CONNECTION_ID:
            return
        pending = self._in_flight.get(started.request_id)
        if pending is not None:
            most = pending.max_body
            if not failed and started.kind != pending.kind | REPLY:
                raise ProtocolError(f"a reply of kind {started.kind:#x} to a {pending.kind.name}")
        elif started.request_id in self._abandoned:
            most = self._abandoned[started.request_id]
        else:
            raise ProtocolError(f"a reply to request {started.request_id}, which was never sent")
        if started.body_size > most:
            raise ProtocolError(f"a reply has a body of {started.body_size} bytes; {most} are allowed")

    def _complete(self, started: MessageStarted, body: bytes) -> None:
        meta = started.meta
        error = unpack_error(started.status, meta) if started.status >= FIRST_ERROR_STATUS else None
        if error is not None and started.request_id == CONNECTION_ID:
            # A copy for each request, because each may be raised in another thread.
            self._fail_all(lambda: _copy(error))
            return
        self._abandoned.pop(started.request_id, None)
        if self._login_id != CONNECTION_ID and started.request_id == self._login_id:
            self._login_id = CONNECTION_ID
            # With 400 a server says that it has no tokens: it serves everybody.
            if error is not None and not isinstance(error, BadRequest):
                self._fail_all(lambda: _refused_token(error))
                return
        if CLOSING in meta or isinstance(error, Draining):
            self.retire()  # others serve at the same address: a successor, or servers behind a balancer
        pending = self._in_flight.pop(started.request_id, None)
        if pending is not None:
            pending.error = error
            if error is None:
                pending.reply = Reply(meta=meta, body=body, received=started.head_size + started.body_size)
            pending.on_done()
        self._idle_since_reply = not self._in_flight
        if self._protocol == 1:
            self._move_to(CoreState.ENDED)

    def _fail_with(self, text: str) -> None:
        self._fail_all(lambda: ProtocolError(text))

    def _fail_all(self, make: Callable[[], VipsrvError]) -> None:
        self._move_to(CoreState.ENDED)
        self._failure = self._failure or make
        failed, self._in_flight = self._in_flight, {}
        loss = object()
        for pending in failed.values():
            pending.loss = loss
            pending.error = make()
            pending.on_done()


def unpack_printable_meta(data: bytes | bytearray) -> dict[str, Any]:
    """The meta of a reply, with unprintable characters replaced. Raises ``ProtocolError``."""
    meta = unpack_meta(data)
    # Without an escape each text is in the JSON as it is, so that one look tells that all are printable, and
    # what has few brackets is not deep. So it is with nearly every reply.
    if b"\\" not in data and data.decode().isprintable() and _brackets(data) <= MAX_META_DEPTH:
        return meta
    try:
        printable: dict[str, Any] = printable_json(meta, MAX_META_DEPTH)
    except ValueError as too_deep:
        raise ProtocolError(f"the meta has {too_deep}") from None
    return printable


def _brackets(data: bytes | bytearray) -> int:
    return data.count(b"{") + data.count(b"[")


def _refused_token(error: RequestError) -> RequestError:
    if isinstance(error, Unauthorized):
        return Unauthorized(f"the server refused the token: {error.message}")
    return _copy(error)


def _copy(error: RequestError) -> RequestError:
    return type(error)(error.message, retry_after_ms=error.retry_after_ms)
