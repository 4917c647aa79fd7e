"""The life of a connection that serves requests, whatever it speaks: its place, states and timeouts.

Its states are in ``states.py``. The bytes come in through an ``Inbox`` and go out through an ``Outbox``. A
class for each protocol, ``BinaryConnection`` and ``HttpConnection``, adds what its messages mean.
"""

import asyncio
import logging
import time
from abc import abstractmethod
from collections.abc import Collection, Iterable
from typing import Generic, TypeVar, cast

from vipsrv.errors import BadRequest, Busy, Draining, Limit, ProtocolError, ReceiveTimeout, RequestError
from vipsrv.server.accounts import Flow
from vipsrv.server.connections.inbox import Inbox, InboxState, RequestReading
from vipsrv.server.connections.outbox import Outbox
from vipsrv.server.connections.states import BEGINNING, READING, TRANSITIONS, ConnectionState
from vipsrv.server.connections.transport import has_hung_up, has_tls, peer_name, socket_of, was_reset
from vipsrv.server.context import ServerContext
from vipsrv.server.exchange import Exchange
from vipsrv.server.logs.request_line import peer_text
from vipsrv.storage.file_store import FULL_RETRY_MS

MAX_IN_FLIGHT = 32
"""Maximum unanswered requests of one connection; at this number the server stops reading from it."""

LINGER_SECONDS = 5.0
"""How long a refused client's bytes are read and discarded."""

QUIET_LINGER_SECONDS = 1.0
"""The same if nothing has arrived since a drain began: a client that never closes must not delay the stop."""

DRAIN_SECONDS = 0.5
"""How long an idle connection is still read during a drain: requests that are on their way take less."""

EXCESS_SECONDS = 1.0
"""How long an excess connection may take to send a request that is answered."""

DISCONNECTED = "the client disconnected"
"""Why the reply to a request is lost, or its work is cancelled, unless the log knows more."""

_log = logging.getLogger(__name__)

R = TypeVar("R", bound=RequestReading)


class ServedConnection(asyncio.BufferedProtocol, Generic[R]):
    """One client; ``reader`` turns its bytes into events, which ``_handle`` gets.

    ``peer`` is the client's address as a proxy has told it; without one, it is that of the socket.
    """

    # Set in ``connection_made``, which asyncio calls before all other methods.
    _transport: asyncio.Transport
    _inbox: Inbox[R]
    _outbox: Outbox
    _place: Flow

    def __init__(self, context: ServerContext, reader: R, peer: object = None) -> None:
        self.watch_at = 0.0
        self.number = context.access_log.next_connection()
        """Its number in the log."""
        self._context = context
        self._reader = reader
        self._peer = peer
        self._state = ConnectionState.ANONYMOUS if context.access.requires_login else ConnectionState.OPEN
        self._reads_until = 0.0  # in ANONYMOUS, EXCESS and DRAINING, in seconds of ``time.monotonic``
        self._linger_seconds = LINGER_SECONDS
        self._reads = 0
        self._reads_when_draining = 0
        self._reads_when_idle: int | None = None  # as told to the registry; None if it counts as not idle
        self._tls = False
        self._lost_because = DISCONNECTED

    # What a protocol adds

    @abstractmethod
    def _open_place(self, peer: object) -> Flow:
        """Return a flow of the client's address, to which the place of the connection counts."""

    @property
    @abstractmethod
    def in_flight(self) -> Collection[Exchange]:
        """The exchanges that are not answered yet, those whose bodies are arriving included."""

    @property
    @abstractmethod
    def answers_are_due(self) -> bool:
        """Whether requests are in flight."""

    @property
    @abstractmethod
    def may_half_close(self) -> bool:
        """Whether the client gets its reply if it has ended its own side meanwhile."""

    def _ask_whether_gone(self) -> None:
        """Send bytes that a client passes over while it waits, if there are such: one that is gone resets."""

    @abstractmethod
    def _begin(self) -> None:
        """Learn who the client is, as far as that is known now."""

    @abstractmethod
    def _end(self) -> None:
        """Give up what belongs to the client: the connection is lost, and its requests were abandoned."""

    @abstractmethod
    def _handle(self, events: Iterable[object]) -> None:
        """Handle what has arrived; iterate over all ``events``."""

    @abstractmethod
    def _has_place(self) -> bool:
        """Whether a further request may start."""

    @abstractmethod
    def _abandon_all(self) -> None:
        """Abandon all requests in flight, because the client has disconnected."""

    @abstractmethod
    def _answer_all(self, error: RequestError) -> None:
        """Answer all requests in flight with an error at once, and abandon their work."""

    @abstractmethod
    def _refuse_incoming(self, error: RequestError) -> None:
        """Answer the request whose body is arriving, before it has arrived."""

    @abstractmethod
    def _refuse_unfinished(self, error: RequestError) -> None:
        """Answer a message that will never be complete."""

    @abstractmethod
    def _refuse_late_login(self) -> None:
        """Answer a client that has not said in time who it is."""

    @property
    def state(self) -> ConnectionState:
        """The current state."""
        return self._state

    @property
    def between_messages(self) -> bool:
        """Whether no message has arrived in part."""
        return self._reader.between_messages

    # Methods that the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the client, or refuse it if there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        self._tls = has_tls(transport)
        self._inbox = Inbox(
            self._transport,
            self._context,
            self._reader,
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
        self._place = self._open_place(peer)
        connections = self._context.connections
        if connections.add(self, self._place.account):
            self._begin()
            if self._context.draining:  # accepted before the listeners were closed
                self.drain()
        elif connections.turn_away(self):
            connections.told_busy += 1
            self._enter(ConnectionState.EXCESS)
            self._reads_until = time.monotonic() + EXCESS_SECONDS
        else:
            connections.dropped += 1
            self._transport.abort()

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
            if not self.may_half_close or not (self.answers_are_due or self._outbox):
                return False
            self._enter(ConnectionState.CLOSING)
            return self._transport.can_write_eof()
        if self._state in READING:
            self._enter(ConnectionState.HALF_CLOSED)
            try:
                self._reader.receive_eof()
            except ProtocolError as error:
                self._refuse_unfinished(BadRequest(str(error)))
            if not self.may_half_close or not self.answers_are_due:
                self._abandon_all()
                self._close()
            else:
                self._ask_whether_gone()
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
        self._end()
        if self._context.access_log.follows_connections:
            self._log_life("connection closed")

    # Methods that the gateway calls

    def watch(self, now: float) -> None:
        """Fail requests after their deadlines, and close the connection after one of its timeouts."""
        self._note_idle()
        for exchange in list(self.in_flight):
            exchange.watch(now)
        if self._outbox.is_stuck(now, self._context.settings.receive_timeout):
            self._lose("the client did not read its reply in time")
        elif slowness := self._outbox.slowness(now, self._context.settings.min_rate):
            self._lose(f"the client read its reply too slowly: {slowness}")
        elif self._state is ConnectionState.LINGERING:
            if now > self._inbox.expires and not self._outbox and not self.answers_are_due:
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
        if self._outbox or any(exchange.has_deadline for exchange in self.in_flight):
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
        elif self._state is ConnectionState.OPEN and not self.answers_are_due and not self._reader.in_body:
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
        if self._inbox.keeps_upload:
            self._inbox.take_what_has_arrived()
        lingering = self._reader.in_body
        self._answer_all(Draining("the server has stopped"))
        if self._state is ConnectionState.LINGERING:
            self._shut_down_when_sent()
        elif lingering:
            self._linger()
        else:
            self._close()

    def abort(self) -> None:
        """Close at once, without sending unsent replies, because the server stops."""
        self._lose("the server has stopped")

    # The connection's own state

    def _log_life(self, event: str) -> None:
        _log.debug(event, extra={"fields": {"connection": self.number, "peer": peer_text(self._peer)}})

    def _lose(self, reason: str) -> None:
        """Close at once; ``reason`` goes into the lines of the replies that cannot be sent."""
        self._lost_because = reason
        self._transport.abort()

    def _enter(self, state: ConnectionState) -> None:
        if state not in TRANSITIONS[self._state]:
            raise RuntimeError(f"a connection that is {self._state.value} cannot become {state.value}")
        self._state = state
        self.watch_at = 0.0

    def _is_idle(self) -> bool:
        return (
            not self.answers_are_due
            and self._state in BEGINNING
            and self._reader.between_messages
            and not self._outbox
        )

    def _note_idle(self) -> None:
        """Tell the registry whether this connection may be closed if its place is needed.

        Only ``watch`` calls this, not every read: what has happened since then is seen in ``give_way``.
        """
        reads = self._reads if self._is_idle() else None
        if reads != self._reads_when_idle:
            self._reads_when_idle = reads
            self._context.connections.mark_idle(self, self._place.account, idle=reads is not None)

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
            self._refuse_late_login()
        elif self._state is ConnectionState.EXCESS:
            self._refuse_unfinished(self._no_place())
        elif not self.between_messages:
            self._refuse_unfinished(Draining("the server is shutting down"))
        elif self._reads == self._reads_when_draining:
            self._linger_seconds = QUIET_LINGER_SECONDS
        self._linger()

    def _watch_inbox(self, now: float) -> None:
        inbox = self._inbox
        if self._state is ConnectionState.HALF_CLOSED:  # nothing more arrives, and no event reports a reset
            if was_reset(self._transport):
                self._lose(DISCONNECTED)
            return
        paused = inbox.state is InboxState.PAUSED
        if paused and self._is_gone():
            # While reading is paused, no event reports the disconnect; MAX_IN_FLIGHT jobs could be wasted.
            self._abandon_all()
            self._close()
        elif now <= inbox.expires:
            if slowness := inbox.slowness(now):
                self._refuse_unfinished(
                    ReceiveTimeout(f"the upload is too slow: {slowness}", limit=Limit.MIN_RATE)
                )
                self._linger()
        elif inbox.waits_for_disk:
            error = Busy(
                "the spool's disk is too slow: try again later",
                retry_after_ms=FULL_RETRY_MS,
                limit=Limit.SPOOL_SPEED,
            )
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
        elif not self.answers_are_due:
            self._close()

    def _is_gone(self) -> bool:
        """Whether the client has disconnected, and nothing that it has sent is still to be kept."""
        return not (self.may_half_close or self._inbox.keeps_upload) and has_hung_up(self._transport)

    def _all_sent(self) -> None:
        if self._state is ConnectionState.LINGERING:
            self._shut_down_when_sent()
        elif self._state is ConnectionState.CLOSING:
            if not self.answers_are_due:
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
        if self.answers_are_due or self._outbox or self._transport.is_closing():
            return
        self._inbox.expires = time.monotonic() + self._linger_seconds
        if not self._transport.can_write_eof():
            return
        try:
            self._transport.write_eof()
        except OSError:  # the client has disconnected, which asyncio's transport does not catch
            self._transport.abort()
