"""One connection without its socket: requests out, replies matched to them. Both clients are its shells.

::

                   start(request)            receive_data(bytes)
    caller ──────► Exchange ───────────────► reply or error set, on_done() called
                     │  head + body: the shell sends them
                     └─ abandon(): nobody waits any more ─► CANCEL, for the shell to send

A request that is refused, given up or fails while its image is being sent leaves the connection in the middle
of a message. Unless little is left to send, such a connection is retired: it takes no further request, and is
dropped when the others in flight have been answered.

Not safe for several threads: the shell holds a lock around every call, and ``on_done`` is called within it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vipsrv.client.requests import Protocol, Request
from vipsrv.errors import ConnectionLost, ProtocolError, RequestError, VipsrvError
from vipsrv.protocol import (
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
)

MAX_REQUEST_ID = 2**32 - 1

FINISH_IF_LEFT = 256 * 1024
"""Bytes of a refused request that are rather sent than a connection given up for them."""

MAX_BODY_SIZE = 2**30
"""Bytes of a reply's body that are accepted, all its results together, for they are held in memory. The 100
megapixels that a server allows by default take less than half of it as RGBA. Text of another protocol that is
taken for a size of version 1 is above it: that begins with ``@``, in front of the letters.
"""

CONNECTION_ID = 0
"""The request id of a reply that concerns the whole connection; no request of ours has it in version 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole reply that is no error. ``received`` are its bytes on the wire, headers included."""

    version: int
    meta: dict[str, Any]
    body: bytes
    received: int


class Exchange:
    """A request that was begun, and what becomes of it: first neither, then either ``reply`` or ``error``.

    ``head`` is what goes over the wire in front of the image, of which ``unsent`` bytes are still to follow.
    ``may_resend`` says of one that was lost that the server had closed an idle connection, so that the
    request may go out again over a new one.
    """

    __slots__ = ("error", "head", "kind", "may_resend", "on_done", "reply", "request_id", "unsent")

    def __init__(
        self, kind: Kind, request_id: int, head: bytes, unsent: int, on_done: Callable[[], None]
    ) -> None:
        self.kind = kind
        self.request_id = request_id
        self.head = head
        self.unsent = unsent
        self.on_done = on_done
        self.reply: Reply | None = None
        self.error: VipsrvError | None = None
        self.may_resend = False

    @property
    def done(self) -> bool:
        """Whether the server's answer, or the loss of the connection, is known."""
        return self.reply is not None or self.error is not None

    def result(self) -> Reply:
        """The reply of an exchange that is done. Raises its error, if that is what became of it."""
        if self.error is not None:
            raise self.error
        if self.reply is None:
            raise RuntimeError("the exchange is not done")
        return self.reply


class ClientCore:
    """The exchanges of one connection to ``peer``, a name for error messages.

    ``closed`` tells that nothing more can come and none be started; the shell then drops its socket.
    """

    def __init__(self, protocol: Protocol, peer: str) -> None:
        self._protocol = protocol
        self._peer = peer
        self._reader = ReplyReader()
        self._in_flight: dict[int, Exchange] = {}
        self._abandoned: set[int] = set()
        self._last_id = 0
        self._message: MessageStarted | None = None
        self._message_size = 0
        self._body: list[bytes] = []
        self._idle_since_reply = False
        self._sending: Exchange | None = None
        self._started = False
        self._retired = False
        self._given_up = False
        self._failure: Callable[[], VipsrvError] | None = None
        self.received = 0
        self.closed = False

    @property
    def usable(self) -> bool:
        """Whether a further exchange may be started."""
        return not (self.closed or self._retired)

    @property
    def superseded(self) -> bool:
        """Whether an exchange that was not started yet belongs on another connection.

        What ends a connection befalls what was started on it, and nothing else. Not so where the client was
        closed, and where the server closed before anything was started: it might do so for ever.
        """
        return not (self.usable or self._given_up or (self.closed and not self._started))

    @property
    def over(self) -> bool:
        """Whether nobody has any use for the connection any more, so that the shell is to drop it."""
        if self.closed or self._in_flight:
            return self.closed
        return self._retired or (self._sending is not None and self.stop_sending(self._sending))

    def start(self, request: Request, body_size: int, on_done: Callable[[], None]) -> Exchange:
        """Begin an exchange whose request has ``body_size`` bytes of image; ``on_done`` is called once.

        On a connection that has closed meanwhile it is done at once, with the error that closed it; see
        ``superseded``.
        """
        if self._protocol == 1:
            request_id = CONNECTION_ID
            head = V1_REQUEST.pack(body_size, request.width, request.height)
        else:
            request_id = self._new_id()
            head = pack_message(request.kind, request_id, request.meta or None, body_size=body_size)
        exchange = Exchange(request.kind, request_id, head, body_size, on_done)
        if self._failure is not None:
            exchange.error = self._failure()
        else:
            self._started = True
            self._in_flight[request_id] = self._sending = exchange
        return exchange

    def stop_sending(self, exchange: Exchange) -> bool:
        """Whether the rest of its image is not worth sending: it was refused, or all is lost."""
        return exchange.done and (self.closed or exchange.unsent > FINISH_IF_LEFT)

    def end_sending(self, *, complete: bool) -> None:
        """The request begun last is sent, or will never be ``complete``: then no other can follow it."""
        self._sending = None
        if not complete:
            self.retire()

    def retire(self) -> None:
        """Start no further exchange; those in flight may still be answered."""
        self._retired = True

    def abandon(self, exchange: Exchange) -> bytes | None:
        """Nobody waits for this exchange any more, so what still comes for it is ignored.

        Gives the CANCEL to send, or ``None`` where there is nothing to cancel or no way to say it: within an
        image that will not be completed it is the end of the connection that says it.
        """
        if self._in_flight.pop(exchange.request_id, None) is None or self._protocol == 1:
            return None
        self._abandoned.add(exchange.request_id)
        if not self.usable:
            return None
        cancel_id = self._new_id()
        self._abandoned.add(cancel_id)
        return pack_message(Kind.CANCEL, cancel_id, {"request_id": exchange.request_id})

    def receive_data(self, data: bytes) -> None:
        """Feed what arrived. What is no reply ends every exchange with ``ProtocolError``."""
        self.received += len(data)
        self._idle_since_reply = False
        view = memoryview(data)
        try:
            while view and not self.closed:
                # Cut at the boundaries of messages, so that the bytes of each can be counted.
                part = view[: self._reader.wanted or len(view)]
                view = view[len(part) :]
                self._message_size += len(part)
                for event in self._reader.receive_data(part):
                    self._handle(event)
        except ProtocolError as error:
            text = f"{self._peer} sent what is no reply of version {self._protocol}: {error}"
            self._fail_all(lambda: ProtocolError(text))

    def receive_eof(self) -> None:
        """The server has closed the connection."""
        if self.received:
            self.lost("closed by the server before the reply was complete")
        elif self._protocol != 1 and self._sending is not None:
            self.lost(
                "closed by the server before it had taken the request; it may be one that speaks version 1 "
                "only, for which there is protocol 1"
            )
        else:
            self.lost("closed by the server before it replied")

    def lost(self, reason: str) -> None:
        """Nothing more will come; ``reason`` goes into the ``ConnectionLost`` of every exchange in flight."""
        for exchange in self._in_flight.values():
            exchange.may_resend = self._idle_since_reply
        self._fail_all(lambda: ConnectionLost(f"the connection to {self._peer} was lost: {reason}"))

    def close(self) -> None:
        """The client was closed: that ends what is in flight and whatever would still be started."""
        self._given_up = True
        self._idle_since_reply = False
        self._failure = None
        self.lost("the client was closed")

    def _new_id(self) -> int:
        self._last_id = self._last_id % MAX_REQUEST_ID + 1
        while self._last_id in self._in_flight or self._last_id in self._abandoned:
            self._last_id = self._last_id % MAX_REQUEST_ID + 1
        return self._last_id

    def _handle(self, event: Event) -> None:
        if isinstance(event, MessageStarted):
            self._check(event)
            self._message = event
        elif isinstance(event, BodyReceived):
            self._body.append(bytes(event.data))
        elif self._message is not None:
            started, body, size = self._message, b"".join(self._body), self._message_size
            self._message, self._body, self._message_size = None, [], 0
            self._complete(started, body, size)

    def _check(self, started: MessageStarted) -> None:
        """Refuse before its body is read what is the reply to nothing, or too large."""
        failed = started.status >= FIRST_ERROR_STATUS
        if started.version != self._protocol and not (failed and self._protocol == 1):
            raise ProtocolError(f"it answers in version {started.version}")
        if started.body_size > MAX_BODY_SIZE:
            raise ProtocolError(
                f"a body of {started.body_size} bytes, over the {MAX_BODY_SIZE} that are accepted"
            )
        if failed and started.request_id == CONNECTION_ID:
            return
        exchange = self._in_flight.get(started.request_id)
        if exchange is None:
            if started.request_id not in self._abandoned:
                raise ProtocolError(f"a reply to request {started.request_id}, which was never sent")
        elif not failed and started.kind != exchange.kind | REPLY:
            raise ProtocolError(f"a reply of kind {started.kind:#x} to a {exchange.kind.name}")

    def _complete(self, started: MessageStarted, body: bytes, size: int) -> None:
        error = unpack_error(started.status, started.meta) if started.status >= FIRST_ERROR_STATUS else None
        if error is not None and started.request_id == CONNECTION_ID:
            # Each its own exception, for each may be raised in another thread.
            self._fail_all(lambda: _same(error))
            return
        self._abandoned.discard(started.request_id)
        exchange = self._in_flight.pop(started.request_id, None)
        if exchange is not None:
            exchange.error = error
            if error is None:
                exchange.reply = Reply(version=started.version, meta=started.meta, body=body, received=size)
            exchange.on_done()
        self._idle_since_reply = not self._in_flight
        if self._protocol == 1:
            self.closed = True

    def _fail_all(self, make: Callable[[], VipsrvError]) -> None:
        self.closed = True
        self._failure = self._failure or make
        failed, self._in_flight = self._in_flight, {}
        for exchange in failed.values():
            exchange.error = make()
            exchange.on_done()


def _same(error: RequestError) -> RequestError:
    return type(error)(error.message, retry_after_ms=error.retry_after_ms)
