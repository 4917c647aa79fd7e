"""Receives the bytes of one client: reads ahead, stores bodies in the spool, takes turns, has timeouts.

::

    expecting a header ──► read-ahead buffer ──► message by message, while more requests may be in flight
    within a body      ──► its slot of the spool; a slot in a file may itself read on from the socket

                 no room for more              room again
        READING ──────────────────► PAUSED ──────────────────► READING
           └───────────┬───────────────┘
                       ├── discard ──► DISCARDING   reads on and discards everything
                       └── end ──────► ENDED        discards what still arrives
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum
from typing import Generic, Protocol, TypeVar

from vipsrv.errors import RequestError
from vipsrv.protocol import MAX_META_SIZE
from vipsrv.server.connections.pace import Pace
from vipsrv.server.connections.tls_transport import TlsTransport
from vipsrv.server.connections.transport import PROGRESS_SIZE, acknowledge_now
from vipsrv.server.context import ServerContext
from vipsrv.storage.kept_slot import KeptSlot

READ_AHEAD_SIZE = 64 * 1024
"""Maximum bytes of one read while a header is expected: enough for all of a small image."""

TURN_SIZE = 4 * 1024 * 1024
"""Bytes that are read from one connection before the others get a turn: a photo, in 2 ms. libuv reads on
while there is more, up to 32 times."""

HEADER_COST = 32 * 1024
"""A header counts as so many bytes: after 128 of them, some milliseconds of work, the others get a turn.
One read may have two thousand."""

_scratch = memoryview(bytearray(READ_AHEAD_SIZE))
"""Holds bytes that are not read into the spool. They are used or copied within one callback, so all
connections share it."""


def _ignore(_: object) -> None:
    """Take the place of a callback that is not to be called any more."""


def _never() -> bool:
    return False


class InboxState(Enum):
    """What happens to the bytes that arrive; see the diagram above."""

    READING = "reading"
    PAUSED = "paused"
    DISCARDING = "discarding"
    ENDED = "ended"


_UNFINISHED = (InboxState.READING, InboxState.PAUSED)
"""The states from which more messages may be read."""


class RequestReading(Protocol):
    """What an inbox asks of the reader of a protocol; see ``RequestReader``, which has the meanings."""

    max_meta_size: int

    def wanted_of(self, data: memoryview) -> int:
        """How many of these bytes, the next ones, may be fed at once; 0 if no further message may come."""

    @property
    def body_left(self) -> int:
        """Bytes of the body that are still to be counted by ``body_received``."""

    @property
    def in_body(self) -> bool:
        """Whether the next byte belongs to such a body."""

    @property
    def between_messages(self) -> bool:
        """Whether no message has arrived in part."""

    @property
    def waits_for_reply(self) -> bool:
        """Whether the client sends nothing more until it has its reply."""

    def receive_data(self, data: memoryview) -> Iterable[object]:
        """Feed bytes; yield the events that they complete. Raises ``ProtocolError`` during that."""

    def body_received(self, size: int) -> Iterable[object]:
        """Count bytes of the body; return the events that they complete."""

    def receive_eof(self) -> None:
        """Note the end of the stream. Raises ``ProtocolError`` within a message."""


class BodyRoom(Protocol):
    """Where the bytes of a body go; see ``Slot``, which has the meanings."""

    on_ready: Callable[[], None] | None

    @property
    def size(self) -> int:
        """Bytes of the body; the most there may be if that is not known."""

    @property
    def received(self) -> int:
        """Bytes that have arrived."""

    @property
    def stalled(self) -> bool:
        """Whether nothing may be read until ``on_ready`` is called."""

    def room(self) -> memoryview:
        """Return the buffer for the next bytes. Raises ``RequestError``."""

    def filled(self, size: int, source: int | None = None) -> None:
        """Count bytes that were put into the last ``room``; more may be read from ``source``."""

    def take_spliced(self) -> int:
        """Return the number of bytes that were read from the source since the last call."""


R = TypeVar("R", bound=RequestReading)


class Inbox(Generic[R]):
    """Reads requests from ``transport``, which ``reader`` turns into events.

    ``source`` is the descriptor of the socket if its bytes are exactly those of the transport, without TLS:
    then a large body goes from there into its file without being copied.
    ``on_events`` gets the events that the bytes complete, and must iterate over all of them. ``on_no_room``
    gets the reason why the arriving body cannot be stored; the rest of it is discarded. ``has_place`` returns
    whether a further request may start; call ``update`` when that changes.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        context: ServerContext,
        reader: R,
        *,
        source: int | None,
        on_events: Callable[[Iterable[object]], None],
        on_no_room: Callable[[RequestError], None],
        has_place: Callable[[], bool],
    ) -> None:
        self.reader = reader
        self.slot: BodyRoom | None = None
        """The slot for the arriving body; ``None`` if the body is discarded."""
        self.fed_slot: BodyRoom | None = None
        """The slot that the owner fills from the events: the body's bytes are not those on the wire."""
        self.expires = time.monotonic() + context.settings.idle_timeout
        """The end of the receive timeout or the idle timeout, in seconds of ``time.monotonic``."""
        self._ahead = _scratch  # for bytes that are not read into the spool
        self._transport = transport
        self._context = context
        self._on_events = on_events
        self._on_no_room = on_no_room
        self._has_place = has_place
        self._source = source
        self._state = InboxState.READING
        self._unread = memoryview(b"")
        self._into_slot = False
        self._no_room: RequestError | None = None
        self._progress = 0
        self._in_turn = 0
        self._pace: Pace | None = None  # of the body in the slot, from the first `slowness` on

    @property
    def state(self) -> InboxState:
        """What happens to the bytes that arrive."""
        return self._state

    @property
    def waits_for_disk(self) -> bool:
        """Whether reading is paused because the disk is behind."""
        slot = self.slot or self.fed_slot
        return slot is not None and slot.stalled

    @property
    def keeps_upload(self) -> bool:
        """Whether what arrives of the body is kept if its client has gone."""
        return isinstance(self.slot or self.fed_slot, KeptSlot)

    def buffer(self) -> memoryview:
        """Return the buffer for the next bytes: within a body it is in the spool and ends with the body."""
        self._into_slot = self.slot is not None
        return self._room(self.slot) if self.slot is not None else self._ahead

    def limit(self, size: int | None) -> None:
        """Read and hold at most ``size`` bytes of what is no body; ``None`` restores the usual bounds."""
        self._ahead = _scratch[:size]
        if isinstance(self._transport, TlsTransport):
            self._transport.limit_reads(size)
        self.reader.max_meta_size = MAX_META_SIZE if size is None else size

    def received(self, size: int) -> None:
        """Process ``size`` bytes that were read into ``buffer``."""
        if self._state is InboxState.DISCARDING or self._state is InboxState.ENDED:
            return
        self._note_progress(size)
        if self._into_slot:
            self._body_received(size, source=self._source)
            self.update()
        else:
            is_all = size < len(self._ahead)
            if is_all:
                self._in_turn = 0  # the socket is empty, so the others get their turn in any case
            self._take(_scratch[:size])
            # The socket is empty in the middle of a message. Version 1 is not concerned: the kernel
            # acknowledges the first segments of a connection at once.
            if is_all and not self.reader.waits_for_reply and not self.reader.between_messages:
                acknowledge_now(self._transport)
        self._take_turns(size)

    def update(self) -> None:
        """Read while there is room for more, and pause otherwise."""
        if self._state is InboxState.ENDED:
            return
        slot = self.slot or self.fed_slot
        if slot is not None and slot.stalled:
            slot.on_ready = self._slot_ready
            self._pause()
        elif self.reader.in_body or self._has_place():
            if self._state is InboxState.PAUSED:
                self._resume()
        else:
            self._pause()

    def take_what_has_arrived(self) -> None:
        """Read the rest of what is in the socket into the slot, because nobody will read it later.

        After a reset the kernel still has the bytes that came before it.
        """
        data, self._unread = self._unread, memoryview(b"")
        while data and self.slot is not None and not self.slot.stalled:
            room = self._room(self.slot)
            part = data[: len(room)]
            room[: len(part)] = part
            self._body_received(len(part))
            data = data[len(part) :]
        self._unread = data
        if self._source is None or data:
            return
        with socket.socket(fileno=os.dup(self._source)) as source, suppress(OSError):
            while self.slot is not None and not self.slot.stalled:
                size = source.recv_into(self._room(self.slot), 0, socket.MSG_DONTWAIT)
                if not size:
                    break
                self._body_received(size)

    def discard(self) -> None:
        """Read on, and discard everything that arrives."""
        self.slot = self.fed_slot = None
        if self._state is InboxState.PAUSED:
            self._resume()
        self._state = InboxState.DISCARDING

    def end(self) -> None:
        """Stop reading, and discard what still arrives."""
        self.slot = self.fed_slot = None
        self._state = InboxState.ENDED
        # They refer to the connection: a cycle would wait for the garbage collector.
        self._on_events = self._on_no_room = _ignore
        self._has_place = _never

    def slowness(self, now: float) -> str | None:
        """Return how slowly the body arrives if that is below the least mean rate; see ``pace.py``."""
        slot, pace = self.slot or self.fed_slot, self._pace
        if slot is None:
            self._pace = None
            return None
        if pace is None or pace.message is not slot:
            pace = self._pace = Pace(slot, self._context.settings.min_rate, now)
        began = slot.began if isinstance(slot, KeptSlot) else 0
        if pace.is_too_slow(now, slot.received - began, waits_for_us=slot.stalled):
            return pace.describe(slot.received - began, slot.size - began)
        return None

    def end_turn(self) -> None:
        """Read no further message before the other connections had a turn."""
        self._in_turn = TURN_SIZE

    def start_idling(self) -> None:
        """Start the idle timeout if no message is arriving."""
        if self._state in _UNFINISHED and self.reader.between_messages:
            self.expires = time.monotonic() + self._context.settings.idle_timeout

    def _take(self, data: memoryview) -> None:
        """Handle the read-ahead bytes, message by message, while there is room for them."""
        while data and self._state is InboxState.READING:
            wanted = self.reader.wanted_of(data)
            if not wanted:
                # More than the one request of version 1: left unread, so that it costs nothing.
                self._pause()
                return
            part = data[:wanted]
            if not self.reader.in_body:
                self._in_turn += HEADER_COST
                self._on_events(self.reader.receive_data(part))
            else:
                if self.slot is not None:
                    room = self._room(self.slot)
                    part = part[: len(room)]
                    room[: len(part)] = part
                self._body_received(len(part))
            data = data[len(part) :]
            self.update()
            if self._in_turn >= TURN_SIZE and (self.reader.between_messages or self.fed_slot is not None):
                self._yield_turn()  # if this is the only client, operators still want their turn
        if self._state is not InboxState.PAUSED:
            data = memoryview(b"")
        self._unread = data if data.readonly else memoryview(bytes(data))

    def _take_unread(self) -> None:
        data, self._unread = self._unread, memoryview(b"")
        self._take(data)
        if self._state is not InboxState.PAUSED and not self._transport.is_closing():
            self._transport.resume_reading()

    def _room(self, slot: BodyRoom) -> memoryview:
        """Return the buffer for the next bytes of the body; without room, a buffer that is discarded."""
        self._no_room = None  # a loop may ask again without having read; there may be room by now
        try:
            return slot.room()
        except RequestError as error:
            self._no_room = error
            return _scratch[: self.reader.body_left]

    def _body_received(self, size: int, source: int | None = None) -> None:
        """Count bytes of the body. The slot may go on reading a large one from ``source``."""
        if self.slot is not None:
            error, self._no_room = self._no_room, None
            if error is None:
                self.slot.filled(size, source)
            else:
                self.slot = None
                self._on_no_room(error)
        events = self.reader.body_received(size)
        if events:
            self._on_events(events)

    def _slot_ready(self) -> None:
        """Continue after the slot has written its bytes; it may itself have read more from the socket."""
        spliced = 0 if self.slot is None else self.slot.take_spliced()
        if spliced:
            self._note_progress(spliced)
            self._on_events(self.reader.body_received(spliced))
        self.update()

    def _note_progress(self, size: int) -> None:
        if self.reader.between_messages:
            self._progress = PROGRESS_SIZE
        self._progress += size
        if self._progress >= PROGRESS_SIZE:
            self._progress = 0
            self.expires = time.monotonic() + self._context.settings.receive_timeout

    def _take_turns(self, size: int) -> None:
        """Count what was read; pause when it is enough for one turn, and others wait."""
        self._in_turn += size
        if self._in_turn >= TURN_SIZE:
            if self._context.connections.served > 1:
                self._yield_turn()
            self._in_turn = 0

    def _yield_turn(self) -> None:
        """Pause for one turn of the event loop; the receive timeout is not made longer by that."""
        self._in_turn = 0
        if self._state is InboxState.READING:
            self._pause()
            asyncio.get_running_loop().call_soon(self._begin_turn, self.expires)

    def _begin_turn(self, expires: float) -> None:
        was_paused = self._state is InboxState.PAUSED
        self.update()
        if was_paused and self._state is InboxState.READING:
            self.expires = expires

    def _pause(self) -> None:
        if self._state is InboxState.READING and not self._transport.is_closing():
            self._state = InboxState.PAUSED
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._state is InboxState.PAUSED and not self._transport.is_closing():
            self._state = InboxState.READING
            self.expires = time.monotonic() + self._context.settings.receive_timeout
            # Later, because a reply may be in the middle of being written.
            asyncio.get_running_loop().call_soon(self._take_unread)
