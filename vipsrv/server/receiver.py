"""How the bytes of a connection are read: ahead, into the spool, in turns with others, and by the clock.

::

    a head is expected ──► read-ahead buffer ──► message by message, as far as there is a place for them
    within a body      ──► its slot of the spool, which may go on by itself where that is a file

Reading pauses while there is no place: too many requests are unanswered, or the disk is behind.
"""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from vipsrv.errors import RequestError
from vipsrv.protocol import Event, RequestReader
from vipsrv.server.outbox import PROGRESS_SIZE
from vipsrv.server.request import Request

if TYPE_CHECKING:
    from vipsrv.server.gateway import Gateway

READ_AHEAD_SIZE = 64 * 1024
"""Bytes that one read may bring where a head is expected: of small images, all."""

TURN_SIZE = 4 * 1024 * 1024
"""Bytes that are read of one connection before it is the turn of the others: a photo, in 2 ms. libuv reads on
while there is more, up to 32 times."""

_scratch = memoryview(bytearray(READ_AHEAD_SIZE))
"""For what is not read into the spool: used up or copied within one callback, so one serves all sessions."""


class Receiver(asyncio.BufferedProtocol):
    """The reading side of a connection; what is read goes to ``_handle``."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._settings = gateway.settings
        self._reader = RequestReader()
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)  # until the connection is made
        self._socket = -1  # likewise
        self._incoming: Request | None = None
        self._unread = memoryview(b"")
        self._into_slot = False
        self._no_room: RequestError | None = None
        self._reading = True
        self._lingering = False
        self._closing = False
        self._progress = 0
        self._in_turn = 0
        self._expires = time.monotonic() + self._settings.idle_timeout

    @property
    @abstractmethod
    def _has_place(self) -> bool:
        """Whether a further request may come."""

    @abstractmethod
    def _handle(self, events: Iterable[Event]) -> None:
        """Messages have begun or ended."""

    @abstractmethod
    def _has_no_room(self, request: Request, error: RequestError) -> None:
        """The body that arrives cannot be held: the rest of it is discarded."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._socket = transport.get_extra_info("socket").fileno()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the reader knows better
        """Where the next bytes go: within a body to the spool, never beyond its end."""
        request = self._incoming
        self._into_slot = (
            self._reader.in_body
            and not self._lingering
            and not self._closing
            and request is not None
            and request.slot is not None
        )
        return self._room() if self._into_slot else _scratch

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have been put there."""
        if self._lingering or self._closing:
            return
        self._note_progress(nbytes)
        if self._into_slot:
            self._body_received(nbytes, source=self._socket)
            self._update_reading()
        else:
            self._take(_scratch[:nbytes])
        self._take_turns(nbytes)

    def _take(self, data: memoryview) -> None:
        """Handle what was read ahead, message by message, as far as there is a place for what it holds."""
        while data and self._reading and not self._lingering and not self._closing:
            wanted = self._reader.wanted
            if not wanted:
                # More than the one request of version 1: not read any further, so that it costs nothing.
                self._set_reading(on=False)
                return
            part = data[:wanted]
            if not self._reader.in_body:
                self._handle(self._reader.receive_data(part))
            else:
                if self._incoming is not None and self._incoming.slot is not None:
                    room = self._room()
                    part = part[: len(room)]
                    room[: len(part)] = part
                self._body_received(len(part))
            data = data[len(part) :]
            self._update_reading()
        if self._lingering or self._closing:
            data = memoryview(b"")  # discarded, as is all that follows; reading would not go on otherwise
        self._unread = data if data.readonly else memoryview(bytes(data))

    def _take_unread(self) -> None:
        data, self._unread = self._unread, memoryview(b"")
        self._take(data)
        if self._reading and not self._unread and not self._transport.is_closing():
            self._transport.resume_reading()

    def _room(self) -> memoryview:
        """Where the next bytes of the body go; if there is no room, to nowhere, and ``_no_room`` says why."""
        assert self._incoming is not None  # noqa: S101 - the callers have looked
        assert self._incoming.slot is not None  # noqa: S101 - likewise
        self._no_room = None  # there may be some by now, if this was asked before and nothing was read
        try:
            return self._incoming.slot.room()
        except RequestError as error:
            self._no_room = error
            return _scratch[: self._reader.wanted]

    def _body_received(self, size: int, source: int | None = None) -> None:
        """The ``source`` of a large body may go on being read by its slot, from this call on."""
        request, error = self._incoming, self._no_room
        if request is not None and error is not None:
            self._no_room = None
            self._has_no_room(request, error)
        elif request is not None and request.slot is not None:
            request.slot.filled(size, source)
        events = self._reader.body_received(size)
        if events:
            self._handle(events)

    def _caught_up(self) -> None:
        """The slot has written what it was given, and may have read more by itself."""
        request = self._incoming
        drawn = 0 if request is None or request.slot is None else request.slot.take_drawn()
        if drawn:
            self._note_progress(drawn)
            self._handle(self._reader.body_received(drawn))
        self._update_reading()

    def _note_progress(self, size: int) -> None:
        if self._reader.between_messages:
            self._progress = PROGRESS_SIZE
        self._progress += size
        if self._progress >= PROGRESS_SIZE:
            self._progress = 0
            self._expires = time.monotonic() + self._settings.receive_timeout

    def _idle_from_now(self) -> None:
        if self._incoming is None and self._reader.between_messages and not self._lingering:
            self._expires = time.monotonic() + self._settings.idle_timeout

    def _update_reading(self) -> None:
        """Read on exactly while there is a place for what comes."""
        request = self._incoming
        if self._lingering:
            self._set_reading(on=True)
        elif request is None:
            self._set_reading(on=self._has_place)
        elif request.slot is not None and request.slot.stalled:
            request.slot.on_ready = self._caught_up
            self._set_reading(on=False)
        else:
            self._set_reading(on=True)

    def _waits_for_disk(self) -> bool:
        slot = None if self._incoming is None else self._incoming.slot
        return slot is not None and slot.stalled

    def _take_turns(self, size: int) -> None:
        """Pause for one turn of the event loop when enough was read in this one."""
        self._in_turn += size
        if self._in_turn < TURN_SIZE:
            return
        self._in_turn = 0
        if self._reading and not self._lingering and self._gateway.connections > 1:
            self._set_reading(on=False)
            asyncio.get_running_loop().call_soon(self._update_reading)

    def _set_reading(self, *, on: bool) -> None:
        if on == self._reading or self._transport.is_closing():
            return
        self._reading = on
        if on:
            self._expires = time.monotonic() + self._settings.receive_timeout
            # Later, as this may be in the middle of a reply.
            asyncio.get_running_loop().call_soon(self._take_unread)
        else:
            self._transport.pause_reading()
