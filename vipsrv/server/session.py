"""One connection: reads requests, hands them on, writes the replies.

::

             header refused, body too large, last reply of a drain
    READING ───────────────────────────────────────────────────────► LINGERING ──► closed
       │  ▲   │                                            reads and discards for a bounded time,
       │  └───┘ request after request (version 2)          so that the reply is not lost to a reset
       └──────► reply to version 1, idle, end of file ─────────────────────────► closed

How its bytes are read is in ``receiver``. Nothing here decodes, blocks or sleeps.
"""

import asyncio
import logging
import select
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from vipsrv.errors import (
    BadRequest,
    Busy,
    Cancelled,
    DeadlineExceeded,
    Draining,
    InternalError,
    ProtocolError,
    ReceiveTimeout,
    RequestError,
    TooLarge,
)
from vipsrv.protocol import (
    OK_STATUS,
    REPLY,
    V1_MAX_SIZE,
    V1_REPLY,
    Event,
    Kind,
    MessageEnded,
    MessageStarted,
    pack_error,
    pack_message,
)
from vipsrv.server.outbox import Outbox
from vipsrv.server.receiver import Receiver
from vipsrv.server.request import Request, success_meta
from vipsrv.server.request_options import parse_resize, refuse_hello_token
from vipsrv.storage.spool import Slot
from vipsrv.workers.channel import Operation
from vipsrv.workers.job import Job, Outcome

if TYPE_CHECKING:
    from vipsrv.server.gateway import Gateway

MAX_IN_FLIGHT = 32
"""Requests of one connection that may be unanswered; beyond it the server stops reading."""

LINGER_SECONDS = 5.0
"""How long a refused client's bytes are read and discarded."""

FULL_RETRY_MS = 1000

_KINDS = frozenset(Kind)

_log = logging.getLogger(__name__)


class Session(Receiver):
    """See the picture above."""

    def __init__(self, gateway: "Gateway") -> None:
        super().__init__(gateway)
        self._outbox: Outbox = cast("Outbox", None)  # until the connection is made
        self._in_flight: dict[int, Request] = {}
        self._ended = False

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        super().connection_made(transport)
        self._outbox = Outbox(self._transport, self._all_sent)
        self._gateway.session_opened(self)
        limit = self._settings.connections
        if self._gateway.connections > limit:
            if not self._gateway.turn_away(self):
                self._transport.abort()
                return
            busy = Busy(
                f"{limit} clients are connected already; try again later", retry_after_ms=FULL_RETRY_MS
            )
            self._reply_to_broken(busy)
            self._linger()

    def eof_received(self) -> bool:
        """The client has shut down its sending side. The connection is closed by us, after what is due."""
        if self._lingering:
            return False
        self._ended = True
        try:
            self._reader.receive_eof()
        except ProtocolError as error:
            self._reply_to_broken(BadRequest(str(error)))
        if self._reader.version == 1 and self._in_flight:
            return True  # it may still wait for its reply
        self._cancel_all()
        self._close()
        return True

    def pause_writing(self) -> None:
        """The client is slower than its replies."""
        self._outbox.pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        # Later: asyncio's transport is in the middle of a write here, and ends twice if it is closed now.
        asyncio.get_running_loop().call_soon(self._outbox.resume)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why makes no difference
        """The connection is gone, and with it the sense of what is in flight."""
        self._closing = True
        self._gateway.session_closed(self)
        self._outbox.close()
        self._cancel_all()

    # What the gateway calls

    def watch(self, now: float) -> None:
        """Close the connection if one of its timeouts is over."""
        self._give_up_late(now)
        if self._outbox.is_stuck(now, self._settings.receive_timeout):
            _log.info("a client did not take its reply in time")
            self._transport.abort()
        elif not self._reading and self._reader.version != 1 and _has_hung_up(self._transport):
            # While nothing is read, nobody tells us; and up to MAX_IN_FLIGHT jobs would be done for no one.
            self._cancel_all()
            self._close()
        elif now > self._expires and self._waits_for_disk():
            self._reply_to_broken(
                Busy("the spool's disk is too slow: try again later", retry_after_ms=FULL_RETRY_MS)
            )
            self._linger()
        elif now <= self._expires or self._outbox or not self._reading:
            return
        elif self._lingering:
            if not self._in_flight:
                self._transport.close()
        elif self._incoming is not None or not self._reader.between_messages:
            seconds = self._settings.receive_timeout
            self._reply_to_broken(
                ReceiveTimeout(f"the upload stalled: too little of it came in {seconds:g} s")
            )
            self._linger()
        elif not self._in_flight:
            self._close()

    def drain(self) -> None:
        """The server is about to stop: finish what is in flight and what has begun to arrive, then close."""
        if not self._in_flight and self._reader.between_messages and not self._lingering:
            self._close()

    def stop(self) -> None:
        """The server stops now: say so to whoever still waits, and close."""
        for request in list(self._in_flight.values()):
            self._reply_error(request, Draining("the server has stopped"))
        lingering = self._lingering or self._incoming is not None
        self._cancel_all()
        if lingering:
            self._lingering = True
            self._shut_down_when_sent()
        else:
            self._close()

    def abort(self) -> None:
        """Close without another word."""
        self._transport.abort()

    # Requests

    def _handle(self, events: Iterable[Event]) -> None:
        try:
            for event in events:
                if isinstance(event, MessageStarted):
                    self._start(event)
                elif isinstance(event, MessageEnded):
                    self._end()
        except ProtocolError as error:
            self._reply_to_broken(BadRequest(str(error)))
            self._linger()

    def _start(self, head: MessageStarted) -> None:
        request = Request(head.version, head.kind, head.request_id, head.meta, time.monotonic())
        self._incoming = request
        try:
            self._accept(request, head.body_size)
        except RequestError as error:
            self._refuse(request, error)
            if head.body_size > self._settings.max_upload:
                self._linger()
        if head.body_size:
            # It has been read, and must not wait for the body: as objects it is twenty times its bytes.
            request.meta = {}

    def _accept(self, request: Request, body_size: int) -> None:
        """Check all that can be checked before the body is read. Raises ``RequestError``."""
        limit = self._settings.max_upload
        if body_size > limit:
            raise TooLarge(f"the image is {body_size} bytes, {body_size - limit} over the limit of {limit}")
        if self._gateway.draining:
            raise Draining("the server is shutting down")
        if request.kind not in _KINDS:
            raise BadRequest(f"kind {request.kind} is not known here")
        if request.kind not in (Kind.RESIZE, Kind.INFO):
            if body_size:
                raise BadRequest(
                    f"a {Kind(request.kind).name} has no body, and this one has {body_size} bytes"
                )
            return
        if not body_size:
            raise BadRequest("there is no image: its size is 0")
        if request.id in self._in_flight:
            raise BadRequest(f"request id {request.id} is in flight already")
        if request.kind == Kind.RESIZE:
            request.options, request.deadline_ms = parse_resize(request.meta)
        self._gateway.admission.check()
        request.slot = self._gateway.spool.open(body_size)
        self._in_flight[request.id] = request

    def _end(self) -> None:
        """A request has arrived whole."""
        request, self._incoming = self._incoming, None
        self._idle_from_now()
        if request is None or request.refused:
            self._close_if_draining()
        elif request.slot is not None:
            request.received = time.monotonic()
            self._submit_when_complete(request)
        else:
            self._answer_at_once(request)

    def _submit_when_complete(self, request: Request) -> None:
        slot = request.slot
        if slot is None or self._in_flight.get(request.id) is not request:
            return
        try:
            if not slot.complete:
                slot.on_ready = partial(self._submit_when_complete, request)
                return
            request.job = Job(
                operation=Operation.RESIZE if request.kind == Kind.RESIZE else Operation.INFO,
                options=request.options,
                image=slot,
                deadline=request.received + self._seconds_for(request),
                on_outcome=partial(self._finish, request),
            )
            self._gateway.admission.submit(request.job)
        except RequestError as error:
            slot.close()
            self._finish(request, Outcome(error=error))

    def _give_up_late(self, now: float) -> None:
        """Answer those whose upload or result waits for the disk at their deadline. Queue and workers have
        been looked at before: what is late there is answered.
        """
        for request in list(self._in_flight.values()):
            if not request.received or now <= request.received + self._seconds_for(request):
                continue
            error = DeadlineExceeded("the spool's disk was too slow for the deadline")
            if request.job is not None:
                request.job.fail(error)
            else:
                self._give_up(request, error)

    def _seconds_for(self, request: Request) -> float:
        if request.deadline_ms is None:
            return self._settings.deadline
        return min(self._settings.deadline, request.deadline_ms / 1000)

    def _answer_at_once(self, request: Request) -> None:
        meta: dict[str, Any] | None = None
        try:
            if request.kind == Kind.HELLO:
                refuse_hello_token(request.meta)
                meta = self._gateway.hello()
            elif request.kind == Kind.CANCEL:
                meta = {"cancelled": self._cancel_by_client(request.meta)}
            elif request.kind == Kind.UPLOAD_STATUS:
                raise BadRequest("resumable uploads are not offered by this server")
        except RequestError as error:
            self._reply_error(request, error)
        else:
            self._outbox.put(pack_message(request.kind | REPLY, request.id, meta, status=OK_STATUS))

    def _cancel_by_client(self, meta: dict[str, Any]) -> bool:
        request_id = meta.get("request_id")
        if type(request_id) is not int:
            raise BadRequest("request_id: must be a whole number")
        request = self._in_flight.get(request_id)
        if request is None:
            return False
        self._cancel(request)
        return True

    def _cancel(self, request: Request) -> None:
        """Stop the work on a request; it is answered with ``Cancelled``."""
        if request.job is not None:
            self._gateway.admission.cancel(request.job)
        else:
            self._give_up(request, Cancelled("the client cancelled the request"))

    def _give_up(self, request: Request, error: RequestError) -> None:
        """Answer what is no job yet."""
        if request.slot is not None:
            request.slot.close()
        self._finish(request, Outcome(error=error))

    def _cancel_all(self) -> None:
        if self._incoming is not None:
            self._forget(self._incoming)
            self._incoming = None
        self._closing = True
        for request in list(self._in_flight.values()):
            self._cancel(request)

    def _finish(self, request: Request, outcome: Outcome) -> None:
        """A request is over, in whatever way: reply, if there is still someone to reply to."""
        self._in_flight.pop(request.id, None)
        if self._closing:
            if outcome.result is not None:
                outcome.result.close()
            return
        if outcome.error is not None:
            self._refuse(request, outcome.error)
        else:
            self._gateway.admission.job_took(outcome.ended - outcome.started)
            self._reply(request, outcome)
        if self._lingering:
            self._shut_down_when_sent()
        self._update_reading()
        self._idle_from_now()
        self._close_if_draining()

    # Replies

    def _reply(self, request: Request, outcome: Outcome) -> None:
        if request.version == 1 and outcome.result is not None:
            self._reply_v1(request, outcome.result)
            return
        meta, size = success_meta(request, outcome)
        head = pack_message(request.kind | REPLY, request.id, meta, status=OK_STATUS, body_size=size)
        self._outbox.put(head, outcome.result)

    def _reply_v1(self, request: Request, result: Slot) -> None:
        if result.size > V1_MAX_SIZE:
            result.close()
            self._refuse(request, TooLarge(f"the result is {result.size} bytes, too many for version 1"))
            return
        self._outbox.put(V1_REPLY.pack(result.size), result)
        self._close()

    def _reply_error(self, request: Request, error: RequestError) -> None:
        level = logging.ERROR if isinstance(error, InternalError) else logging.INFO
        where = f" ({error.where})" if isinstance(error, InternalError) else ""
        _log.log(level, "request %d: %d %s: %s%s", request.id, error.status, error.code, error, where)
        self._outbox.put(pack_error(request.kind, request.id, error))

    def _refuse(self, request: Request, error: RequestError) -> None:
        """Answer with an error. What is still to come of the body is discarded."""
        request.refused = True
        self._reply_error(request, error)
        if request.version == 1:
            self._linger()

    def _reply_to_broken(self, error: RequestError) -> None:
        """Answer something that is no complete message, under the id it has given, if any."""
        request, self._incoming = self._incoming, None
        if request is not None:
            self._forget(request)
            if not request.refused:
                self._reply_error(request, error)
            return
        header = self._reader.header
        kind, request_id = (Kind.RESIZE, 0) if header is None else (header.kind, header.request_id)
        self._reply_error(Request(2, kind & ~REPLY, request_id, {}, 0.0), error)

    # The connection's own state

    @property
    def _has_place(self) -> bool:
        return len(self._in_flight) + len(self._outbox) < MAX_IN_FLIGHT

    def _has_no_room(self, request: Request, error: RequestError) -> None:
        self._forget(request)
        self._refuse(request, error)

    def _forget(self, request: Request) -> None:
        """A request that has not arrived whole will not be worked on."""
        if self._in_flight.get(request.id) is request:
            del self._in_flight[request.id]
        if request.slot is not None:
            request.slot.close()
            request.slot = None

    def _all_sent(self) -> None:
        if self._lingering:
            self._shut_down_when_sent()
        elif self._closing:
            self._transport.close()
        else:
            self._update_reading()
            self._idle_from_now()

    def _close_if_draining(self) -> None:
        if self._gateway.draining and not self._in_flight and self._incoming is None:
            self._linger()  # for more requests may be on their way

    def _close(self) -> None:
        """Close when all replies have been taken."""
        self._closing = True
        if not self._outbox:
            self._transport.close()

    def _linger(self) -> None:
        """Read no more requests: send what is due, then discard what comes for a while, then close."""
        if self._lingering or self._closing:
            return
        if self._ended:
            self._close()
            return
        if self._incoming is not None:
            self._forget(self._incoming)
            self._incoming = None
        self._lingering = True
        self._update_reading()
        self._shut_down_when_sent()

    def _shut_down_when_sent(self) -> None:
        if self._in_flight or self._outbox or self._transport.is_closing():
            return
        self._expires = time.monotonic() + LINGER_SECONDS
        if not self._transport.can_write_eof():
            return
        try:
            self._transport.write_eof()
        except OSError:  # the client has gone: asyncio's transport lets that through
            self._transport.abort()


def _has_hung_up(transport: asyncio.Transport) -> bool:
    """Whether the client has closed its sending side, be there unread bytes before that or not.

    Where the system cannot tell (it is not Linux), whether it has closed altogether.
    """
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), getattr(select, "POLLRDHUP", select.POLLHUP))
    return bool(poll.poll(0))
