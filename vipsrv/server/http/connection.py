"""A connection that speaks HTTP/1.1 and 1.0: requests in, replies out in the same order.

``connections/served.py`` has what it shares with the binary protocol. A request with an image has an
``Exchange``; its body goes from the inbox straight into the slot if its bytes are those on the wire, and is
fed to the slot otherwise. The requests wait in a queue until they are the first one and have a reply::

    head ──► routes ─┬─► refused ─────────────────────────────────────► reply
                     ├─► Page: at once, later, or a stream ───────────► reply
                     ├─► ImageRoute ──► exchange ──► body ──► worker ──► reply
                     └─► BodyRoute ──► body task ──► body ─────────────► reply
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Collection, Iterable
from functools import partial

from vipsrv.errors import InternalError, RequestError
from vipsrv.server.accounts import Flow
from vipsrv.server.connections.inbox import BodyRoom
from vipsrv.server.connections.login import LOGIN_SECONDS
from vipsrv.server.connections.served import MAX_IN_FLIGHT, ServedConnection
from vipsrv.server.connections.states import ConnectionState
from vipsrv.server.context import ServerContext
from vipsrv.server.exchange import Exchange
from vipsrv.server.http.bodies import FormBody, store
from vipsrv.server.http.clients import HttpClients
from vipsrv.server.http.head import Head
from vipsrv.server.http.messages import Headers, HttpRequest, HttpResponse, HttpStream
from vipsrv.server.http.pending import PendingReply, PendingRequest
from vipsrv.server.http.reader import BodyPart, HttpReader, RefusedRequest, RequestEnded
from vipsrv.server.http.refusals import NotFound
from vipsrv.server.http.replies import (
    CONTINUE,
    headers_of_refusal,
    options_of,
    pack_head,
    pack_response,
)
from vipsrv.server.http.routes import Answer, BodyRoute, ImageRoute, ImageTask, Page, Routes
from vipsrv.server.http.streams import RunningStream
from vipsrv.server.logs.request_line import RequestLine
from vipsrv.workers.channel import Operation

MOST_DISCARDED = 256 * 1024
"""Bytes of a refused request's body that are read and discarded, so that the connection lives on."""

MOST_AROUND_FILE = 64 * 1024
"""Bytes of a form beside its file: a form may be larger than the largest image by so much."""

_KINDS = {Operation.RESIZE: "resize", Operation.INFO: "info"}
_PAGE = "page"

_OK = 200

_log = logging.getLogger(__name__)


class HttpConnection(ServedConnection[HttpReader]):
    """One client of HTTP, or a proxy with the requests of several; ``routes`` answer them."""

    _clients: HttpClients

    def __init__(self, context: ServerContext, routes: Routes, peer: object = None) -> None:
        super().__init__(context, HttpReader(), peer)
        # Each request shows who sends it; no state of the connection depends on that.
        self._state = ConnectionState.OPEN
        self._routes = routes
        self._requests = 0
        self._pending: deque[PendingRequest] = deque()
        self._receiving: PendingRequest | None = None  # its body has not arrived completely
        self._stream: RunningStream | None = None  # while it is the answer to the first request

    @property
    def in_flight(self) -> Collection[Exchange]:
        """The exchanges that have not finished."""
        return [
            one.exchange for one in self._pending if one.exchange is not None and one.exchange.outcome is None
        ]

    @property
    def answers_are_due(self) -> bool:
        """Whether requests are in flight, or replies wait for those before them."""
        return bool(self._pending)

    @property
    def may_half_close(self) -> bool:
        """Whether replies are due other than a stream, which nobody ends but the client."""
        return self._stream is None

    def _ask_whether_gone(self) -> None:
        """Send a 100 (Continue), which any client of HTTP/1.1 passes over (RFC 9110, section 15.2)."""
        head = self._pending[0].head
        if head is not None and not head.is_http_1_0:
            self._outbox.put(CONTINUE)

    def _open_place(self, peer: object) -> Flow:
        self._clients = HttpClients(self._context, peer)
        return self._clients.place

    def _begin(self) -> None:
        if self._tls:
            self._clients.take_certificate(self._transport)
        if self._clients.are_anonymous:
            self._inbox.expires = time.monotonic() + LOGIN_SECONDS

    def _end(self) -> None:
        self._clients.close()

    def drain(self) -> None:
        """Finish the requests in flight, and end a stream; then close."""
        self._finish_stream()
        super().drain()

    # Requests

    def _handle(self, events: Iterable[object]) -> None:
        self.watch_at = 0.0
        try:
            for event in events:
                if isinstance(event, BodyPart):
                    self._feed(event.data)
                elif isinstance(event, Head):
                    self._start(event)
                elif isinstance(event, RequestEnded):
                    self._request_ended()
        except RefusedRequest as refused:
            self._refuse_unfinished(refused.error)
            self._linger()

    def _start(self, head: Head) -> None:
        self._requests += 1
        pending = PendingRequest(self._requests, head, closes=not head.keeps_alive)
        self._pending.append(pending)
        self._receiving = pending
        try:
            self._route(pending, head)
        except RequestError as error:
            self._refuse(pending, error)
        self._advance()

    def _route(self, pending: PendingRequest, head: Head) -> None:
        """Begin to answer a request. Raises ``RequestError``."""
        routes = self._routes
        request = HttpRequest(
            method=head.method,
            path=head.path,
            query=head.query,
            fields=head.fields,
            body_size=head.body_size,
            peer=self._peer,
            tls=self._tls,
        )
        pending.more_headers = routes.more_headers(request)
        if self._state is ConnectionState.EXCESS:
            pending.closes = True
            raise self._no_place()
        found = routes.find(head.path)
        if found is None and head.path != "*":
            raise NotFound("there is nothing at this path")
        route = None if found is None else found.for_method(request)
        if route is None:
            pending.kind = _PAGE
            self._answer(pending, options_of(found, head.method))
        elif isinstance(route, Page):
            pending.kind = route.kind
            if not route.public:
                self._identify(pending, request)
            self._open_page(pending, route, request)
        else:
            self._identify(pending, request)
            if isinstance(route, ImageRoute):
                self._start_image(pending, route, request)
            else:
                self._start_body(pending, route, request)

    def _identify(self, pending: PendingRequest, request: HttpRequest) -> None:
        """Note who sends a request. Raises ``RequestError``."""
        client = pending.client = self._clients.of(request.fields)
        request.session = client.session
        request.account = client.flow.account

    def _open_page(self, pending: PendingRequest, page: Page, request: HttpRequest) -> None:
        try:
            answer = page.answer(request)
        except RequestError:
            raise
        except Exception:  # noqa: BLE001 - logged with its traceback; the client is told
            _log.exception("%s could not be answered", request.path)
            raise InternalError("the page could not be made") from None
        if isinstance(answer, HttpResponse | HttpStream):
            self._answer(pending, answer)
        else:
            later = self._answer_later(pending, answer, request.path)
            pending.answering = asyncio.get_running_loop().create_task(later)

    async def _answer_later(self, pending: PendingRequest, answer: Awaitable[Answer], path: str) -> None:
        try:
            self._answer(pending, await answer)
        except RequestError as error:
            self._refuse(pending, error)
        except Exception:  # noqa: BLE001 - logged with its traceback; the client is told
            _log.exception("%s could not be answered", path)
            self._refuse(pending, InternalError("the page could not be made"))
        finally:
            pending.answering = None
        self._advance()
        self._after_reply()

    def _start_image(self, pending: PendingRequest, route: ImageRoute, request: HttpRequest) -> None:
        """Begin to take an image, or the form that it is in. Raises ``RequestError``."""
        task = pending.task = route.begin(request)
        pending.kind = _KINDS[task.operation]
        size = request.body_size
        if task.form_boundary is None:
            self._open_exchange(pending, task, size)
            if pending.exchange is not None and pending.exchange.outcome is None:
                if size is None:
                    self._inbox.fed_slot = pending.exchange.slot
                else:
                    self._inbox.slot = pending.exchange.slot
        else:
            # What is known before the image is checked before the client is told to send the form.
            self._context.check_upload(max(0, (size or 0) - MOST_AROUND_FILE))
            self._context.admission.check(self._flow_of(pending))
            pending.form = FormBody(task.form_boundary, task, partial(self._slot_for_form, pending))
            self._reader.feed_body()
        self._expect_body(pending)

    def _flow_of(self, pending: PendingRequest) -> Flow:
        return self._clients.place if pending.client is None else pending.client.flow

    def _open_exchange(self, pending: PendingRequest, task: ImageTask, size: int | None) -> None:
        """Open the exchange for an image; if it is refused, the reply is there when this returns."""
        session = None
        if pending.client is not None:
            pending.client.requests += 1
            session = pending.client.session
        exchange = pending.exchange = Exchange(
            self._context, task.operation, self._flow_of(pending), partial(self._finished, pending), session
        )
        exchange.accept(task.meta, size, task.digest)

    def _slot_for_form(self, pending: PendingRequest) -> BodyRoom | None:
        """Return the slot for the image of a form, ``None`` if the image is refused."""
        if pending.task is None:
            return None
        self._open_exchange(pending, pending.task, None)
        self._inbox.fed_slot = None if pending.exchange is None else pending.exchange.slot
        return self._inbox.fed_slot

    def _start_body(self, pending: PendingRequest, route: BodyRoute, request: HttpRequest) -> None:
        """Let a route take the body. Raises ``RequestError``."""
        pending.kind = route.kind
        task = pending.body_task = route.begin(request, partial(self._body_answered, pending))
        if pending.client is not None:
            pending.client.requests += 1
        if request.body_size is None:
            self._inbox.fed_slot = task.room
        else:
            self._inbox.slot = task.room
            task.take_arrived = self._inbox.take_what_has_arrived
        self._expect_body(pending)

    def _expect_body(self, pending: PendingRequest) -> None:
        head = pending.head
        pending.waits_to_send = pending.reply is None and head is not None and head.continues
        if self._state is ConnectionState.DRAINING and pending.reply is None:
            self._enter(ConnectionState.OPEN)  # it is served because the server has a successor

    def _feed(self, data: memoryview) -> None:
        """Take a part of a body that does not go straight into its slot."""
        pending = self._receiving
        if pending is None or pending.reply is not None:
            return
        taker = pending.body_task or pending.form
        try:
            if taker is not None:
                taker.feed(data)
            elif self._inbox.fed_slot is not None:
                store(data, self._inbox.fed_slot)
        except RequestError as error:
            self._refuse_incoming(error)

    def _request_ended(self) -> None:
        pending = self._receiving
        if pending is not None and pending.form is not None and pending.reply is None:
            try:
                pending.form.end()
            except RequestError as error:
                self._refuse_incoming(error)
        self._receiving = None
        self._inbox.slot = self._inbox.fed_slot = None
        if pending is None:
            return
        pending.waits_to_send = False
        exchange = pending.exchange
        if pending.body_task is not None:
            pending.body_task.body_ended()
        elif exchange is not None and exchange.outcome is None:
            exchange.body_ended()
        else:
            self._after_reply()

    def _has_place(self) -> bool:
        pending = self._pending
        if self._receiving is not None:
            return True
        # After a request that is the last one, nothing is read (RFC 9112, section 9.6).
        return not pending or (not pending[-1].closes and len(pending) + len(self._outbox) < MAX_IN_FLIGHT)

    # Replies

    def _finished(self, pending: PendingRequest, exchange: Exchange) -> None:
        """Reply to a request with its outcome."""
        self.watch_at = 0.0
        if pending.client is not None:
            pending.client.requests -= 1
        outcome = exchange.take_outcome()
        task = pending.task
        if outcome.error is not None or task is None:
            self._refuse(pending, outcome.error or InternalError("the request has no task"))
        else:
            self._answer_success(pending, task, exchange)
        pending.exchange = pending.task = pending.form = None  # a cycle would wait for the garbage collector
        self._advance()
        self._after_reply()

    def _body_answered(self, pending: PendingRequest, answer: HttpResponse | RequestError) -> None:
        """Reply to a request with what came of its body."""
        self.watch_at = 0.0
        pending.body_task = None
        if pending.client is not None:
            pending.client.requests -= 1
        if isinstance(answer, RequestError):
            self._refuse(pending, answer)
        else:
            self._answer(pending, answer)
        self._advance()
        self._after_reply()

    def _answer_success(self, pending: PendingRequest, task: ImageTask, exchange: Exchange) -> None:
        try:
            self._answer(pending, task.reply(exchange))
        except Exception as error:  # noqa: BLE001 - whoever waits for an outcome must not get an error of ours
            if exchange.outcome is not None and exchange.outcome.result is not None:
                exchange.outcome.result.close()
            if not isinstance(error, RequestError):
                _log.exception("the reply to a %s could not be made", pending.kind)
                error = InternalError("the reply could not be made")
            self._refuse(pending, error)

    def _refuse(self, pending: PendingRequest, error: RequestError) -> None:
        """Answer with an error; close if the body that is still to come is too long to be discarded."""
        self._inbox.end_turn()  # the others wait no longer for clients that never pause
        error.forget_frames()
        response = self._routes.problem(error)
        if self._receiving is pending:
            self._inbox.slot = self._inbox.fed_slot = None
        more = headers_of_refusal(error, response.headers)
        self._answer(pending, response, more, error)

    def _answer(
        self, pending: PendingRequest, answer: Answer, more: Headers = (), error: RequestError | None = None
    ) -> None:
        """Make the reply to a request; ``_advance`` sends it when its turn has come."""
        head = pending.head
        is_last = not self._pending or pending is self._pending[-1]
        # A client that keeps its connection would not notice that others serve already.
        stops = self._context.draining or self._context.turns_clients_away
        ends = stops or self._state is ConnectionState.HALF_CLOSED
        if (ends and is_last) or (self._receiving is pending and not self._can_discard(pending)):
            pending.closes = True
        stream = answer if isinstance(answer, HttpStream) else None
        head_only = head is not None and head.method == "HEAD"
        more = (*more, *pending.more_headers)
        if stream is not None:
            if pending.is_http_1_0:
                pending.closes = True  # the end of the connection is the end of the reply
            else:
                more = (*more, ("Transfer-Encoding", "chunked"))
            packed = pack_head(_OK, (*stream.headers, *more), connection=pending.connection_field)
            line = self._line_of(pending, _OK, None)
            pending.reply = PendingReply(packed, None, (), line, None if head_only else stream)
        elif isinstance(answer, HttpResponse):
            packed = pack_response(answer, more, connection=pending.connection_field, head_only=head_only)
            result, inserts = answer.result, answer.inserts
            if head_only and result is not None:
                result.close()
                result, inserts = None, ()
            pending.reply = PendingReply(
                packed, result, inserts, self._line_of(pending, answer.status, error)
            )

    def _can_discard(self, pending: PendingRequest) -> bool:
        """Whether the rest of a body may be read and discarded, so that the next request can follow."""
        head = pending.head
        if head is None or head.body_size is None or head.continues:
            return False
        return self._reader.body_left <= MOST_DISCARDED

    def _advance(self) -> None:
        """Send the replies whose turn has come."""
        while self._pending and self._stream is None:
            first = self._pending[0]
            reply = first.reply
            if reply is None:
                if first.waits_to_send:
                    first.waits_to_send = False
                    self._outbox.put(CONTINUE)
                return
            if reply.stream is not None:
                self._outbox.put(reply.head, None, reply.line)
                self._stream = RunningStream(reply.stream, self._outbox, in_chunks=not first.is_http_1_0)
                if self._context.draining:
                    self._finish_stream()
                return
            self._pending.popleft()
            self._outbox.put(reply.head, reply.result, reply.line, reply.inserts)
            if first.closes:
                self._drop_rest()
                self._linger()
                return

    def _drop_rest(self) -> None:
        """Forget what follows a reply that closes the connection; nothing was begun after it."""
        self._receiving = None

    def _after_reply(self) -> None:
        if self._state is ConnectionState.LINGERING:
            self._shut_down_when_sent()
        elif self._state is ConnectionState.HALF_CLOSED and not self._pending:
            self._close()
        self._inbox.update()
        self._inbox.start_idling()
        self._drain_if_told()

    # Streams

    def _finish_stream(self) -> None:
        """End the stream, which completes its reply; send the replies that waited for it."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        stream.end()
        self._pending.popleft()
        if self._pending:
            self._advance()
        else:
            self._drop_rest()
            self._linger()

    # What the end of the connection or of the server means

    def _refuse_incoming(self, error: RequestError) -> None:
        pending = self._receiving
        if pending is None or pending.reply is not None:
            return
        if pending.exchange is not None:
            pending.exchange.refuse(error)  # which calls `_finished`
        elif pending.body_task is not None:
            pending.body_task.refuse(error)  # which calls `_body_answered`
        else:
            self._refuse(pending, error)
            self._advance()

    def _refuse_unfinished(self, error: RequestError) -> None:
        """Answer a request that will never be complete, and nothing after it."""
        pending = self._receiving
        if pending is not None:
            pending.closes = True
            self._refuse_incoming(error)
        elif not self._reader.between_messages:
            self._requests += 1
            pending = PendingRequest(self._requests, None, closes=True)
            self._pending.append(pending)
            self._refuse(pending, error)
            self._advance()

    def _refuse_late_login(self) -> None:
        """Nothing: no connection waits for a login."""

    def _answer_all(self, error: RequestError) -> None:
        self._finish_stream()
        for pending in self._pending:
            if pending.reply is None:
                self._give_up(pending, error.message)
                self._refuse(pending, error)
        self._advance()

    def _abandon_all(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abandon()
            self._pending.popleft()
        self._receiving = None
        self._inbox.slot = self._inbox.fed_slot = None
        abandoned, self._pending = self._pending, deque()
        for pending in abandoned:
            reply = pending.reply
            if reply is None:
                self._give_up(pending, self._lost_because)
                line: RequestLine | None = pending.line(self.number, self._peer, tls=self._tls)
            else:
                line = reply.line
                if reply.result is not None:
                    reply.result.close()
            if line is not None:
                line.lost = self._lost_because
                self._context.ended_requests.log(line)

    def _give_up(self, pending: PendingRequest, reason: str) -> None:
        """Stop the work for a request."""
        if pending.answering is not None:
            pending.answering.cancel()
        task, pending.body_task, pending.form = pending.body_task, None, None
        if task is not None:
            task.abandon()
        elif pending.exchange is not None:
            pending.exchange.abandon(reason)
        else:
            return
        if pending.client is not None:
            pending.client.requests -= 1

    # The log

    def _line_of(
        self, pending: PendingRequest, status: int, error: RequestError | None
    ) -> RequestLine | None:
        if error is None and not self._context.ended_requests.follows_successes:
            return None
        line = pending.line(self.number, self._peer, tls=self._tls)
        if error is not None:
            line.error = error
        elif status != _OK:
            line.http_status = status
        return line
