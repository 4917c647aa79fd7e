"""A connection that speaks the binary protocol, versions 1 and 2.

Its states are in ``states.py``. The bytes come in through an ``Inbox`` and go out through an ``Outbox``;
between them each image has an ``Exchange``. Nothing here decodes, blocks or sleeps.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any, cast

from vipsrv.errors import (
    BadRequest,
    Busy,
    Draining,
    ProtocolError,
    ReceiveTimeout,
    RequestError,
    TooLarge,
    Unauthorized,
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
from vipsrv.server.connections.inbox import Inbox, InboxState
from vipsrv.server.connections.login import (
    LOGIN_SECONDS,
    MOST_HELD,
    Login,
    error_before_login,
    too_late,
)
from vipsrv.server.connections.outbox import Outbox
from vipsrv.server.connections.states import BEGINNING, READING, TRANSITIONS, ConnectionState
from vipsrv.server.connections.transport import has_hung_up, has_tls, peer_name, socket_of
from vipsrv.server.context import ServerContext
from vipsrv.server.exchange import Exchange
from vipsrv.server.logs.request_line import RequestLine, peer_text
from vipsrv.server.report import report_json
from vipsrv.storage.file_store import FULL_RETRY_MS
from vipsrv.storage.spool import Slot
from vipsrv.workers.channel import Operation

MAX_IN_FLIGHT = 32
"""Maximum unanswered requests of one connection; at this number the server stops reading from it."""

LINGER_SECONDS = 5.0
"""How long a refused client's bytes are read and discarded."""

QUIET_LINGER_SECONDS = 1.0
"""The same if nothing has arrived since a drain began: a client that never closes must not delay the stop."""

DRAIN_SECONDS = 0.5
"""How long an idle connection is still read during a drain: requests that are on their way take less."""

EXCESS_SECONDS = 1.0
"""How long an excess connection may take to send a PING."""

_OPERATIONS: dict[int, Operation] = {Kind.RESIZE: Operation.RESIZE, Kind.INFO: Operation.INFO}
_KINDS = {operation: kind for kind, operation in _OPERATIONS.items()}
_ALL_KINDS = frozenset(Kind)
_NAMES = {int(kind): kind.name.lower() for kind in Kind}  # in the log

DISCONNECTED = "the client disconnected"
"""Why the reply to a request is lost, or its work is cancelled, unless the log knows more."""

_log = logging.getLogger(__name__)


class BinaryConnection(asyncio.BufferedProtocol):
    """One client of the binary protocol.

    ``peer`` is the client's address as a proxy has told it; without one, it is that of the socket.
    """

    # Set in ``connection_made``, which asyncio calls before all other methods.
    _transport: asyncio.Transport
    _inbox: Inbox
    _outbox: Outbox
    _login: Login

    def __init__(self, context: ServerContext, peer: object = None) -> None:
        self.watch_at = 0.0
        self.number = context.access_log.next_connection()
        """Its number in the log."""
        self._context = context
        self._peer = peer
        self._state = ConnectionState.ANONYMOUS if context.access.requires_login else ConnectionState.OPEN
        self._reads_until = 0.0  # in ANONYMOUS, EXCESS and DRAINING, in seconds of ``time.monotonic``
        self._in_flight: dict[int, Exchange] = {}
        self._linger_seconds = LINGER_SECONDS
        self._reads = 0
        self._reads_when_draining = 0
        self._reads_when_idle: int | None = None  # as told to the registry; None if it counts as not idle
        self._incoming: Exchange | None = None  # its body is arriving; None if the body is discarded
        self._tls = False
        self._lost_because = DISCONNECTED

    @property
    def state(self) -> ConnectionState:
        """The current state."""
        return self._state

    @property
    def identity(self) -> str | None:
        """The name of the client that has logged in or shown a certificate."""
        return self._login.identity

    @property
    def incoming(self) -> Exchange | None:
        """The exchange whose body is arriving."""
        return self._incoming

    @property
    def in_flight(self) -> Collection[Exchange]:
        """The exchanges that are not answered yet, those whose bodies are arriving included."""
        return self._in_flight.values()

    @property
    def between_messages(self) -> bool:
        """Whether no message has arrived in part."""
        return self._inbox.reader.between_messages

    # Methods that the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the client, or refuse it if there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        self._tls = has_tls(transport)
        self._inbox = Inbox(
            self._transport,
            self._context,
            source=None if self._tls else socket_of(transport),
            on_events=self._handle,
            on_no_room=self._refuse_incoming,
            has_place=self._has_place,
        )
        self._outbox = Outbox(self._transport, self._all_sent, self._context.ended_requests, tls=self._tls)
        peer = self._peer = peer_name(transport) if self._peer is None else self._peer
        if peer is None:
            self._enter(ConnectionState.CLOSED)
            self._inbox.end()
            self._transport.abort()
            return
        if self._context.access_log.follows_connections:
            self._log_life("connection opened")
        self._login = Login(self._context, peer)
        if self._state is ConnectionState.ANONYMOUS:
            self._inbox.limit(MOST_HELD)
        connections = self._context.connections
        if connections.add(self, self._login.place.account):
            self._begin()
            if self._context.draining:  # accepted before the listeners were closed
                self.drain()
        elif connections.turn_away(self):
            self._enter(ConnectionState.EXCESS)
            self._reads_until = time.monotonic() + EXCESS_SECONDS
        else:
            self._transport.abort()

    def _begin(self) -> None:
        """Take the identity of a certificate, or wait for the login if one is required."""
        if self._tls:
            self._login.take_certificate(self._transport)
            if self._login.identity is not None:
                self._leave_anonymity()
        if self._state is ConnectionState.ANONYMOUS:
            self._reads_until = time.monotonic() + LOGIN_SECONDS

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the inbox decides the size
        """Return the buffer for the next bytes."""
        return self._inbox.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Handle ``nbytes`` bytes that have been read into the buffer."""
        self.watch_at = 0.0
        self._reads += 1
        self._inbox.received(nbytes)

    def eof_received(self) -> bool:
        """Handle the end of the client's sending side: close when all due replies have been sent."""
        if self._state is ConnectionState.LINGERING:
            return False
        if self._state in READING:
            self._enter(ConnectionState.HALF_CLOSED)
            try:
                self._inbox.reader.receive_eof()
            except ProtocolError as error:
                self._refuse_unfinished(BadRequest(str(error)))
            if self._inbox.reader.version != 1 or not self._in_flight:
                self._abandon_all()
                self._close()
        return self._transport.can_write_eof()  # or it has no half-close

    def pause_writing(self) -> None:
        """Pause the replies: the client reads them too slowly."""
        self.watch_at = 0.0
        self._outbox.pause()

    def resume_writing(self) -> None:
        """Resume the replies: the client has caught up."""
        # Later: asyncio's transport is in the middle of a write here, and ends twice if it is closed now.
        asyncio.get_running_loop().call_soon(self._outbox.resume)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason makes no difference
        """Abandon the requests in flight: the connection is lost."""
        if self._state is ConnectionState.CLOSED:
            return  # it was not known whose connection it is, so it was never registered
        self._enter(ConnectionState.CLOSED)
        self._inbox.end()
        self._context.connections.remove(self)
        if self._outbox.failure is not None:
            self._lost_because = self._outbox.failure
        self._outbox.close(self._lost_because)
        self._abandon_all()
        self._login.close()
        if self._context.access_log.follows_connections:
            self._log_life("connection closed")

    # Methods that the gateway calls

    def watch(self, now: float) -> None:
        """Fail requests after their deadlines, and close the connection after one of its timeouts."""
        self._note_idle()
        for exchange in list(self._in_flight.values()):
            exchange.watch(now)
        if self._outbox.is_stuck(now, self._context.settings.receive_timeout):
            self._lose("the client did not read its reply in time")
        elif slowness := self._outbox.slowness(now, self._context.settings.min_rate):
            self._lose(f"the client read its reply too slowly: {slowness}")
        elif self._state is ConnectionState.LINGERING:
            if now > self._inbox.expires and not self._outbox and not self._in_flight:
                self._transport.close()
        elif self._state in (ConnectionState.OPEN, ConnectionState.HALF_CLOSED):
            self._watch_inbox(now)
        elif self._state in READING and now > self._reads_until:
            self._stop_reading()
        self._sleep_until_due()

    def _sleep_until_due(self) -> None:
        """Set ``watch_at`` if nothing but the end of one timeout is left to check.

        Whatever gives ``watch`` more to do sets it back to 0.
        """
        if self._outbox or any(exchange.has_deadline for exchange in self._in_flight.values()):
            return
        if self._state is ConnectionState.OPEN:
            if self._inbox.state is InboxState.READING:
                self.watch_at = self._inbox.expires
        elif self._state is ConnectionState.LINGERING:
            self.watch_at = self._inbox.expires
        elif self._state in READING:
            self.watch_at = self._reads_until

    def drain(self) -> None:
        """Finish the requests in flight, refuse those that arrive for a moment, then close."""
        if self._state is ConnectionState.ANONYMOUS:
            # It stays that: a server with a successor serves requests on a connection that is DRAINING.
            self._reads_when_draining = self._reads
            self._reads_until = min(self._reads_until, time.monotonic() + DRAIN_SECONDS)
            self.watch_at = 0.0
        elif self._state is ConnectionState.OPEN and not self._in_flight and not self._inbox.reader.in_body:
            self._enter(ConnectionState.DRAINING)
            self._reads_when_draining = self._reads
            # A request that is served anyway does not make the time longer.
            self._reads_until = self._reads_until or time.monotonic() + DRAIN_SECONDS

    def give_way(self) -> bool:
        """Close if nothing has happened since ``watch`` found the connection idle; return whether it has."""
        if not self._is_idle() or self._reads != self._reads_when_idle:
            return False
        if self._context.connections.turn_away(self):
            self._linger()
        else:
            self._transport.abort()
        return True

    def stop(self) -> None:
        """Answer all requests in flight with ``Draining``, then close."""
        stopped = Draining("the server has stopped")
        exchanges, self._in_flight = self._in_flight, {}
        for request_id, exchange in exchanges.items():
            exchange.abandon(stopped.message)
            self._reply_error(_KINDS[exchange.operation], request_id, stopped, exchange)
        lingering = self._inbox.reader.in_body
        self._abandon_all()
        if self._state is ConnectionState.LINGERING:
            self._shut_down_when_sent()
        elif lingering:
            self._linger()
        else:
            self._close()

    def abort(self) -> None:
        """Close at once, without sending unsent replies, because the server stops."""
        self._lose("the server has stopped")

    # Messages

    def _handle(self, events: Iterable[Event]) -> None:
        self.watch_at = 0.0
        try:
            for event in events:
                if isinstance(event, MessageStarted):
                    self._start(event)
                elif isinstance(event, MessageEnded):
                    self._end()
        except ProtocolError as error:
            refusal: RequestError = BadRequest(str(error))
            if self._state is ConnectionState.ANONYMOUS:
                refusal = error_before_login(self._inbox.reader.header, refusal.message)
            self._refuse_unfinished(refusal)
            self._linger()

    def _start(self, head: MessageStarted) -> None:
        if self._state is not ConnectionState.OPEN and not self._may_start(head):
            return
        operation = _OPERATIONS.get(head.kind)
        if operation is None:
            self._answer_at_once(head)
        else:
            self._start_exchange(head, operation)
        if head.body_size > self._context.settings.max_upload:
            self._linger()

    def _may_start(self, head: MessageStarted) -> bool:
        """Whether a message may be handled although the connection is not OPEN; if not, refuse it."""
        refusal: RequestError | None = None
        if self._state is ConnectionState.EXCESS and head.kind != Kind.PING:
            refusal = self._no_place()
        elif self._state is ConnectionState.ANONYMOUS:
            try:
                self._login.check_first(head)
            except Unauthorized as error:
                refusal = error
            else:
                if head.version == 1:
                    self._leave_anonymity()
        if refusal is not None:
            self._reply_error(head.kind, head.request_id, refusal)
            self._linger()
        return refusal is None

    def _leave_anonymity(self) -> None:
        if self._state is ConnectionState.ANONYMOUS:
            self._enter(ConnectionState.OPEN)
            self._inbox.limit(None)
            self._reads_until = 0.0

    def _start_exchange(self, head: MessageStarted, operation: Operation) -> None:
        request_id = head.request_id
        login = self._login
        exchange = Exchange(
            self._context, operation, login.flow, partial(self._finished, request_id), login.session
        )
        if request_id in self._in_flight:
            exchange.refuse(self._error_for_reused_id(head))
            return
        exchange.accept(head.meta, head.body_size)
        if exchange.outcome is None:
            self._in_flight[request_id] = self._incoming = exchange
            self._inbox.slot = exchange.slot
            if self._state is ConnectionState.DRAINING:  # it is served because the server has a successor
                self._enter(ConnectionState.OPEN)

    def _error_for_reused_id(self, head: MessageStarted) -> RequestError:
        try:
            self._context.check_upload(head.body_size)
        except RequestError as error:
            return error
        return BadRequest(f"request id {head.request_id} is in flight already")

    def _end(self) -> None:
        """Handle the end of a message."""
        exchange, self._incoming = self._incoming, None
        self._inbox.slot = None
        if exchange is not None:
            exchange.body_ended()
        else:
            self._inbox.start_idling()
            self._drain_if_told()

    def _answer_at_once(self, head: MessageStarted) -> None:
        """Answer a message that needs no worker."""
        try:
            meta = self._answer(head)
        except RequestError as error:
            self._reply_error(head.kind, head.request_id, error)
            if isinstance(error, Unauthorized) or (
                self._state is ConnectionState.ANONYMOUS and head.kind != Kind.PING
            ):
                self._linger()
        else:
            reply = pack_message(head.kind | REPLY, head.request_id, meta, status=OK_STATUS)
            self._outbox.put(reply, None, self._line_of_success(head.kind, head.request_id))

    def _answer(self, head: MessageStarted) -> dict[str, Any] | None:
        """The meta of the reply to a message that needs no worker. Raises ``RequestError``."""
        if head.kind == Kind.CANCEL and not head.body_size:  # during a drain, too: less work is in flight
            return {"cancelled": self._cancel(head.meta)}
        self._context.check_upload(head.body_size)
        if head.kind not in _ALL_KINDS:
            raise BadRequest(f"kind {head.kind} is unknown")
        if head.body_size:
            raise BadRequest(f"a {Kind(head.kind).name} has no body, but this one has {head.body_size} bytes")
        if head.kind == Kind.HELLO:
            described = self._login.hello(head.meta)
            self._leave_anonymity()
            return described
        if head.kind == Kind.UPLOAD_STATUS:
            raise BadRequest("this server does not offer resumable uploads")
        self._context.check_ready()  # a PING
        return None

    def _cancel(self, meta: dict[str, Any]) -> bool:
        """Cancel the request that a CANCEL names; return whether it was in flight. Raises ``BadRequest``."""
        request_id = meta.get("request_id")
        if type(request_id) is not int:
            raise BadRequest("request_id: must be a whole number")
        exchange = self._in_flight.get(request_id)
        if exchange is None:
            return False
        exchange.cancel()
        return True

    def _abandon_all(self) -> None:
        """Abandon all requests in flight, because the client has disconnected."""
        self._incoming = None
        self._inbox.slot = None
        exchanges, self._in_flight = self._in_flight, {}
        for request_id, exchange in exchanges.items():
            exchange.abandon(self._lost_because)
            line = self._line(_KINDS[exchange.operation], request_id, exchange)
            line.lost = self._lost_because
            self._context.ended_requests.log(line)

    # Replies

    def _finished(self, request_id: int, exchange: Exchange) -> None:
        """Reply to a request with its outcome."""
        self.watch_at = 0.0
        if self._in_flight.get(request_id) is exchange:
            del self._in_flight[request_id]
        if self._incoming is exchange:
            self._incoming = None
            self._inbox.slot = None
        self._reply(request_id, exchange)
        if self._state is ConnectionState.LINGERING:
            self._shut_down_when_sent()
        if self._outbox:  # or `_all_sent` has done so
            self._inbox.update()
            self._inbox.start_idling()
        self._drain_if_told()

    def _reply(self, request_id: int, exchange: Exchange) -> None:
        outcome = exchange.take_outcome()
        kind = _KINDS[exchange.operation]
        if outcome.error is not None:
            self._reply_error(kind, request_id, outcome.error, exchange)
            if self._inbox.reader.version == 1 or isinstance(outcome.error, Unauthorized):
                self._linger()
        elif self._inbox.reader.version == 1 and outcome.result is not None:
            self._reply_v1(exchange, outcome.result)
        else:
            meta, size = report_json(outcome, exchange.timeline)
            head = pack_message(kind | REPLY, request_id, meta, status=OK_STATUS, body_size=size)
            self._outbox.put(head, outcome.result, self._line_of_success(kind, request_id, exchange))

    def _reply_v1(self, exchange: Exchange, result: Slot) -> None:
        if result.size > V1_MAX_SIZE:
            result.close()
            error = TooLarge(f"the result is {result.size} bytes, too many for version 1")
            self._reply_error(Kind.RESIZE, 0, error, exchange)
            self._linger()
            return
        self._outbox.put(V1_REPLY.pack(result.size), result, self._line_of_success(Kind.RESIZE, 0, exchange))
        self._close()

    def _reply_error(
        self, kind: int, request_id: int, error: RequestError, exchange: Exchange | None = None
    ) -> None:
        line = self._line(kind, request_id, exchange)
        line.error = error
        self._outbox.put(pack_error(kind, request_id, error), None, line)

    def _line_of_success(
        self, kind: int, request_id: int, exchange: Exchange | None = None
    ) -> RequestLine | None:
        if not self._context.ended_requests.follows_successes:
            return None
        return self._line(kind, request_id, exchange)

    def _line(self, kind: int, request_id: int, exchange: Exchange | None = None) -> RequestLine:
        """Return the line of a request for the log, with what is known when its reply is ready."""
        line = RequestLine(
            connection=self.number,
            peer=self._peer,
            identity=self.identity,
            certified=self._login.session is None,
            version=self._inbox.reader.version,
            tls=self._tls,
            kind=_NAMES.get(kind) or f"kind {kind}",
            request_id=request_id,
        )
        if exchange is not None:
            line.add(exchange.size, exchange.ids, exchange.timeline, exchange.outcome)
        return line

    def _log_life(self, event: str) -> None:
        _log.debug(event, extra={"fields": {"connection": self.number, "peer": peer_text(self._peer)}})

    def _lose(self, reason: str) -> None:
        """Close at once; ``reason`` goes into the lines of the replies that cannot be sent."""
        self._lost_because = reason
        self._transport.abort()

    def _refuse_incoming(self, error: RequestError) -> None:
        """Answer the request whose body is arriving, before it has arrived."""
        if self._incoming is not None:
            self._incoming.refuse(error)

    def _refuse_unfinished(self, error: RequestError) -> None:
        """Answer a message that will never be complete, with its id if that has arrived."""
        if self._inbox.reader.in_body:
            self._refuse_incoming(error)  # or it is answered already, and its body is being discarded
            return
        header = self._inbox.reader.header
        kind, request_id = (Kind.RESIZE, 0) if header is None else (header.kind, header.request_id)
        self._reply_error(kind & ~REPLY, request_id, error)

    # The connection's own state

    def _enter(self, state: ConnectionState) -> None:
        if state not in TRANSITIONS[self._state]:
            raise RuntimeError(f"a connection that is {self._state.value} cannot become {state.value}")
        self._state = state
        self.watch_at = 0.0

    def _is_idle(self) -> bool:
        return (
            not self._in_flight
            and self._state in BEGINNING
            and self._inbox.reader.between_messages
            and not self._outbox
        )

    def _note_idle(self) -> None:
        """Tell the registry whether this connection may be closed if its place is needed.

        Only ``watch`` calls this, not every read: what has happened since then is seen in ``give_way``.
        """
        reads = self._reads if self._is_idle() else None
        if reads != self._reads_when_idle:
            self._reads_when_idle = reads
            self._context.connections.mark_idle(self, self._login.place.account, idle=reads is not None)

    def _no_place(self) -> Busy:
        connections = self._context.connections
        return Busy(
            f"all {connections.limit} connections, or the {connections.per_client} of this client's address, "
            "are in use; try again later",
            retry_after_ms=FULL_RETRY_MS,
        )

    def _stop_reading(self) -> None:
        """End ANONYMOUS, EXCESS or DRAINING: refuse a message that has arrived in part, and linger."""
        if self._state is ConnectionState.ANONYMOUS and not self._context.draining:
            self._refuse_unfinished(too_late())
        elif self._state is ConnectionState.EXCESS:
            self._refuse_unfinished(self._no_place())
        elif not self.between_messages:
            self._refuse_unfinished(Draining("the server is shutting down"))
        elif self._reads == self._reads_when_draining:
            self._linger_seconds = QUIET_LINGER_SECONDS
        self._linger()

    def _has_place(self) -> bool:
        return len(self._in_flight) + len(self._outbox) < MAX_IN_FLIGHT

    def _watch_inbox(self, now: float) -> None:
        inbox = self._inbox
        paused = inbox.state is InboxState.PAUSED
        if paused and inbox.reader.version != 1 and has_hung_up(self._transport):
            # While reading is paused, no event reports the disconnect; MAX_IN_FLIGHT jobs could be wasted.
            self._abandon_all()
            self._close()
        elif now <= inbox.expires:
            if slowness := inbox.slowness(now):
                self._refuse_unfinished(ReceiveTimeout(f"the upload is too slow: {slowness}"))
                self._linger()
        elif inbox.waits_for_disk:
            error = Busy("the spool's disk is too slow: try again later", retry_after_ms=FULL_RETRY_MS)
            self._refuse_unfinished(error)
            self._linger()
        elif paused or self._outbox:
            return
        elif not self.between_messages:
            seconds = self._context.settings.receive_timeout
            self._refuse_unfinished(
                ReceiveTimeout(f"the upload stalled: too little of it arrived in {seconds:g} s")
            )
            self._linger()
        elif not self._in_flight:
            self._close()

    def _all_sent(self) -> None:
        if self._state is ConnectionState.LINGERING:
            self._shut_down_when_sent()
        elif self._state is ConnectionState.CLOSING:
            self._transport.close()
        else:
            self._inbox.update()
            self._inbox.start_idling()

    def _drain_if_told(self) -> None:
        if self._context.draining:
            self.drain()

    def _close(self) -> None:
        """Close when all replies have been sent."""
        if self._state in READING or self._state is ConnectionState.HALF_CLOSED:
            self._enter(ConnectionState.CLOSING)
            self._inbox.end()
        if not self._outbox:
            self._transport.close()

    def _linger(self) -> None:
        """Read no more requests: send due replies, discard what arrives for a while, then close."""
        if self._state is ConnectionState.HALF_CLOSED:
            self._close()
        elif self._state in READING:
            self._enter(ConnectionState.LINGERING)
            self._inbox.discard()
            self._shut_down_when_sent()

    def _shut_down_when_sent(self) -> None:
        if self._in_flight or self._outbox or self._transport.is_closing():
            return
        self._inbox.expires = time.monotonic() + self._linger_seconds
        if not self._transport.can_write_eof():
            return
        try:
            self._transport.write_eof()
        except OSError:  # the client has disconnected, which asyncio's transport does not catch
            self._transport.abort()
