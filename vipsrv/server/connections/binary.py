"""A connection that speaks the binary protocol, versions 1 and 2.

``served.py`` has what it shares with HTTP. Between the ``Inbox`` and the ``Outbox`` each image has an
``Exchange``. Nothing here decodes, blocks or sleeps.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any

from vipsrv.errors import (
    BadRequest,
    Busy,
    ProtocolError,
    RequestError,
    TooLarge,
    Unauthorized,
    UploadConflict,
)
from vipsrv.protocol import (
    CLOSING,
    OK_STATUS,
    REPLY,
    V1_MAX_SIZE,
    V1_REPLY,
    Kind,
    MessageEnded,
    MessageStarted,
    RequestReader,
    pack_error,
    pack_message,
)
from vipsrv.server.accounts import Flow
from vipsrv.server.connections.login import (
    LOGIN_SECONDS,
    MOST_HELD,
    Login,
    error_before_login,
    too_late,
)
from vipsrv.server.connections.served import MAX_IN_FLIGHT, ServedConnection
from vipsrv.server.connections.states import ConnectionState
from vipsrv.server.context import ServerContext
from vipsrv.server.exchange import Exchange
from vipsrv.server.logs.request_line import RequestLine, peer_text
from vipsrv.server.report import report_json
from vipsrv.server.uploads import NOT_OFFERED, check_id
from vipsrv.storage.kept_slot import KeptSlot
from vipsrv.storage.spool import Slot
from vipsrv.workers.channel import Operation

_HTTP_SIZES = frozenset(
    int.from_bytes(method[:4], "big") for method in (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTIONS")
)
"""The sizes that a version 1 request seems to announce if it is the beginning of a request of HTTP."""

_CLOSING = f',"{CLOSING}":true}}'.encode()
"""What ends the meta of a reply on a connection that the client should leave."""

_log = logging.getLogger(__name__)

LOOK_AGAIN = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064)
"""Seconds between looks at an upload that another connection is just ending with.

Mostly its last bytes are written after a few milliseconds. A client that is told to ask again waits longer.
"""

_OPERATIONS: dict[int, Operation] = {Kind.RESIZE: Operation.RESIZE, Kind.INFO: Operation.INFO}
_KINDS = {operation: kind for kind, operation in _OPERATIONS.items()}
_ALL_KINDS = frozenset(Kind)
_NAMES = {int(kind): kind.name.lower() for kind in Kind}  # in the log


class BinaryConnection(ServedConnection[RequestReader]):
    """One client of the binary protocol."""

    _login: Login

    def __init__(self, context: ServerContext, peer: object = None) -> None:
        super().__init__(context, RequestReader(), peer)
        self._in_flight: dict[int, Exchange] = {}
        self._incoming: Exchange | None = None  # its body is arriving; None if the body is discarded
        self._looks: dict[int, asyncio.TimerHandle] = {}  # of each UPLOAD_STATUS that waits, by its id

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
    def answers_are_due(self) -> bool:
        """Whether requests are in flight, or an UPLOAD_STATUS waits."""
        return bool(self._in_flight or self._looks)

    @property
    def may_half_close(self) -> bool:
        """Whether the client speaks version 1, which has one request and one reply."""
        return self._reader.version == 1

    def _open_place(self, peer: object) -> Flow:
        self._login = Login(self._context, peer)
        if self._state is ConnectionState.ANONYMOUS:
            self._inbox.limit(MOST_HELD)
        return self._login.place

    def _begin(self) -> None:
        """Take the identity of a certificate, or wait for the login if one is required."""
        if self._tls:
            self._login.take_certificate(self._transport)
            if self._login.identity is not None:
                self._leave_anonymity()
        if self._state is ConnectionState.ANONYMOUS:
            self._reads_until = time.monotonic() + LOGIN_SECONDS

    def _end(self) -> None:
        self._login.close()

    def _refuse_late_login(self) -> None:
        self._refuse_unfinished(too_late())

    def _answer_all(self, error: RequestError) -> None:
        exchanges, self._in_flight = self._in_flight, {}
        for request_id, exchange in exchanges.items():
            exchange.abandon(error.message)
            self._reply_error(_KINDS[exchange.operation], request_id, error, exchange)
        for request_id in self._looks:
            self._reply_error(Kind.UPLOAD_STATUS, request_id, error)
        self._abandon_all()

    # Messages

    def _handle(self, events: Iterable[object]) -> None:
        self.watch_at = 0.0
        try:
            for event in events:
                if isinstance(event, MessageStarted):
                    self._start(event)
                elif isinstance(event, MessageEnded):
                    self._message_ended()
        except ProtocolError as error:
            refusal: RequestError = BadRequest(str(error))
            if self._state is ConnectionState.ANONYMOUS:
                refusal = error_before_login(self._reader.header, refusal.message)
            self._refuse_unfinished(refusal)
            self._linger()

    def _start(self, head: MessageStarted) -> None:
        if self._state is not ConnectionState.OPEN and not self._may_start(head):
            return
        operation = _OPERATIONS.get(head.kind)
        if head.version == 1 and head.body_size in _HTTP_SIZES:
            _log.info(
                "%s seems to speak HTTP, which this address does not; see --listen http://HOST:PORT",
                peer_text(self._peer),
            )
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
            self._inbox.slot = slot = exchange.slot
            if isinstance(slot, KeptSlot):
                slot.on_taken = partial(self._give_up_upload, exchange)
                slot.needs_turn = self._tls
            if self._state is ConnectionState.DRAINING:  # it is served because the server has a successor
                self._enter(ConnectionState.OPEN)

    def _error_for_reused_id(self, head: MessageStarted) -> RequestError:
        try:
            self._context.check_upload(head.body_size)
        except RequestError as error:
            return error
        return BadRequest(f"request id {head.request_id} is in flight already")

    def _message_ended(self) -> None:
        """Handle the end of a message."""
        exchange, self._incoming = self._incoming, None
        self._inbox.slot = None
        if exchange is not None:
            exchange.body_ended()
        else:
            self._inbox.start_idling()
            self._drain_if_told()

    def _answer_at_once(self, head: MessageStarted, looks: int = 0) -> None:
        """Answer a message that needs no worker. ``looks`` is how often that has been tried."""
        try:
            meta = self._answer(head)
        except RequestError as error:
            if self._will_look_again(head, error, looks):
                return
            self._reply_error(head.kind, head.request_id, error)
            if isinstance(error, Unauthorized) or (
                self._state is ConnectionState.ANONYMOUS and head.kind != Kind.PING
            ):
                self._linger()
        else:
            reply = pack_message(head.kind | REPLY, head.request_id, meta, status=OK_STATUS)
            self._outbox.put(reply, None, self._line_of_success(head.kind, head.request_id))

    def _will_look_again(self, head: MessageStarted, error: RequestError, looks: int) -> bool:
        """Whether an UPLOAD_STATUS is answered later: its upload is just being let go elsewhere."""
        if head.kind != Kind.UPLOAD_STATUS or not isinstance(error, Busy):
            return False
        if looks == len(LOOK_AGAIN) or head.request_id in self._looks:
            return False
        later = asyncio.get_running_loop().call_later(LOOK_AGAIN[looks], self._look_again, head, looks + 1)
        self._looks[head.request_id] = later
        return True

    def _look_again(self, head: MessageStarted, looks: int) -> None:
        del self._looks[head.request_id]
        self._answer_at_once(head, looks)
        if self._state is ConnectionState.LINGERING:
            self._shut_down_when_sent()
        self._inbox.update()
        self._inbox.start_idling()
        self._drain_if_told()

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
            return self._upload_status(head.meta)
        self._context.check_ready()  # a PING
        return None

    def _upload_status(self, meta: dict[str, Any]) -> dict[str, Any]:
        """The meta of the reply to an UPLOAD_STATUS. Raises ``RequestError``."""
        uploads, login = self._context.uploads, self._login
        if uploads is None or not uploads.offered:
            raise BadRequest(NOT_OFFERED)
        if login.session is not None:
            login.session.refresh()
        status = uploads.status(login.flow.account, check_id(meta.get("id")))
        return {"received": status.received, "size": status.size}

    def _give_up_upload(self, exchange: Exchange) -> None:
        """Put what has arrived of the body into its upload, and let another connection go on with it."""
        if self._incoming is exchange:
            self._inbox.take_what_has_arrived()
        if self._incoming is exchange:  # its last bytes have not arrived
            self._refuse_incoming(UploadConflict("upload: another connection goes on with this upload"))
            self._linger()

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
        looks, self._looks = self._looks, {}
        for look in looks.values():
            look.cancel()
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
            if self._reader.version == 1 or isinstance(outcome.error, Unauthorized):
                self._linger()
        elif self._reader.version == 1 and outcome.result is not None:
            self._reply_v1(exchange, outcome.result)
        else:
            meta, size = report_json(outcome, exchange.timeline)
            if self._context.turns_clients_away:
                meta = meta.removesuffix(b"}") + _CLOSING
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
        error.forget_frames()
        line = self._line(kind, request_id, exchange)
        line.error = error
        self._inbox.end_turn()  # else clients that send on when they are refused would take all the time
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
            version=self._reader.version,
            tls=self._tls,
            kind=_NAMES.get(kind) or f"kind {kind}",
            request_id=request_id,
        )
        if exchange is not None:
            line.add(exchange.size, exchange.ids, exchange.timeline, exchange.outcome)
            line.received = exchange.received
        return line

    def _refuse_incoming(self, error: RequestError) -> None:
        """Answer the request whose body is arriving, before it has arrived."""
        if self._incoming is not None:
            self._incoming.refuse(error)

    def _refuse_unfinished(self, error: RequestError) -> None:
        """Answer a message that will never be complete, with its id if that has arrived."""
        if self._reader.in_body:
            self._refuse_incoming(error)  # or it is answered already, and its body is being discarded
            return
        header = self._reader.header
        kind, request_id = (Kind.RESIZE, 0) if header is None else (header.kind, header.request_id)
        self._reply_error(kind & ~REPLY, request_id, error)

    # The connection's own state

    def _has_place(self) -> bool:
        return len(self._in_flight) + len(self._looks) + len(self._outbox) < MAX_IN_FLIGHT
