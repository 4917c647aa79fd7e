"""Sends the replies to one client: in order, one at a time, with the transport's backpressure.

::

             the transport holds bytes
    WRITING ───────────────────────────► WAITING      writes again when the kernel has taken them
       ▲                                    │
       └────────────────────────────────────┘
    The connection is closed: from either state to CLOSED.

A result's memory goes back to the spool when the kernel has taken its last byte, not before: the transport's
high-water mark is the lowest there is, so "not paused" means that the transport holds no bytes.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TypeAlias

from vipsrv.server.connections.pace import Pace
from vipsrv.server.connections.transport import PROGRESS_SIZE
from vipsrv.server.ended_requests import EndedRequests
from vipsrv.server.logs.request_line import RequestLine
from vipsrv.storage.spool import Slot

FILE_READ_SIZE = 256 * 1024
"""Bytes of a result in a file that are read and sent at a time."""

Inserts: TypeAlias = tuple[tuple[int, bytes], ...]
"""Bytes that are sent before the byte of a body at each offset, in the order of the offsets; the size of the
body is the offset of its end."""

_log = logging.getLogger(__name__)


def _ignore() -> None:
    """Take the place of a callback that is not to be called any more."""


class OutboxState(Enum):
    """Whether replies may be written; see the diagram above."""

    WRITING = "writing"
    WAITING = "waiting"
    CLOSED = "closed"


class Outbox:
    """The replies to be written to ``transport``; ``on_empty`` is called when all of them have been sent.

    ``ended`` is told of each reply that has a line, when the reply has been sent or is lost.
    """

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        on_empty: Callable[[], None],
        ended: EndedRequests,
        *,
        tls: bool = False,
    ) -> None:
        self.failure: str | None = None
        """Why the outbox itself has closed the connection."""
        self._transport = transport
        # A plain transport pauses us above its mark, one with TLS at it.
        self._high_water = 1 if tls else 0
        self._on_empty = on_empty
        self._ended = ended
        self._waiting: deque[tuple[bytes, Slot | None, RequestLine | None, Inserts]] = deque()
        self._sending: Slot | None = None
        self._line: RequestLine | None = None  # of the reply that is being sent
        self._offset = 0
        self._inserts: Inserts = ()  # those of the body that is being sent, from the next one on
        self._state = OutboxState.WRITING
        self._lost_because = ""
        self._written = 0
        self._taken_at_mark = 0
        self._expires: float | None = None
        self._pace: Pace | None = None  # of the body that is being sent, from the first `slowness` on
        self._taken_before = 0  # of the replies before that body

    def __len__(self) -> int:
        """The number of replies that are not completely sent."""
        return len(self._waiting) + (self._state is OutboxState.WAITING or self._sending is not None)

    def put(
        self,
        head: bytes,
        body: Slot | None = None,
        line: RequestLine | None = None,
        inserts: Inserts = (),
    ) -> None:
        """Send ``head`` and all of ``body``, which the outbox closes afterwards; then pass ``line`` on.

        ``inserts`` are sent between the bytes of ``body``.
        """
        if self._state is OutboxState.CLOSED:
            if body is not None:
                body.close()
            if line is not None:
                self._note_lost(line)
            return
        self._waiting.append((head, body, line, inserts))
        if self._state is OutboxState.WRITING and self._sending is None and len(self._waiting) == 1:
            self._pump()

    def pause(self) -> None:
        """Stop writing: the transport still holds bytes."""
        if self._state is OutboxState.WRITING:
            self._state = OutboxState.WAITING

    def resume(self) -> None:
        """Continue writing: the transport has passed everything to the kernel."""
        if self._state is OutboxState.WAITING:
            self._state = OutboxState.WRITING
        self._pump()

    def is_stuck(self, now: float, timeout: float) -> bool:
        """Whether the client read less than ``PROGRESS_SIZE`` bytes, and not all, in ``timeout`` seconds.

        Call it several times a second, with ``now`` of ``time.monotonic``.
        """
        if not self:
            self._expires = None
            return False
        taken = self._written - self._transport.get_write_buffer_size()
        if self._expires is None or taken - self._taken_at_mark >= PROGRESS_SIZE:
            self._taken_at_mark = taken
            self._expires = now + timeout
        return now > self._expires

    def slowness(self, now: float, rate: int) -> str | None:
        """Return how slowly the client reads its reply if that is below the mean ``rate``; see ``pace.py``.

        Call it several times a second, with ``now`` of ``time.monotonic``.
        """
        body, pace = self._sending, self._pace
        if body is None:
            self._pace = None
            return None
        taken = self._written - self._transport.get_write_buffer_size()
        if pace is None or pace.message is not body:
            pace = self._pace = Pace(body, rate, now)
            self._taken_before = taken
        moved = taken - self._taken_before
        return pace.describe(moved, body.size) if pace.is_too_slow(now, moved) else None

    def close(self, reason: str) -> None:
        """Release all memory: the connection is closed. ``reason`` is for the log: why replies are lost."""
        self._state = OutboxState.CLOSED
        self._lost_because = reason
        if self._sending is not None:
            self._sending.close()
            self._sending = None
        if self._line is not None:
            self._note_lost(self._line)
            self._line = None
        for _, body, line, _ in self._waiting:
            if body is not None:
                body.close()
            if line is not None:
                self._note_lost(line)
        self._waiting.clear()
        self._on_empty = _ignore  # it refers to the connection: a cycle would wait for the garbage collector

    def _note_lost(self, line: RequestLine) -> None:
        line.lost = self._lost_because
        self._ended.log(line)

    def _pump(self) -> None:
        # Not after a failed write: asyncio's `writelines` would then watch a descriptor that is about to be
        # closed (Python 3.12 and 3.13), and the next connection to get its number would never be read.
        while self._state is OutboxState.WRITING and not self._transport.is_closing():
            body = self._sending
            if (
                body is not None
                and body.descriptor is not None
                and (self._inserts or self._offset < body.size)
            ):
                if not self._write_piece(body):
                    self.failure = "the result could not be read from the spool"
                    self._transport.abort()  # the reply has begun, so no error can be sent
                    return
            elif body is not None:
                body.close()
                self._sending = None
            elif self._line is not None:
                line, self._line = self._line, None
                line.sent = time.monotonic()
                self._ended.log(line)
            elif self._waiting:
                head, body, self._line, inserts = self._waiting.popleft()
                self._sending = body
                self._offset = 0
                views: list[bytes | memoryview] = [] if body is None else [*body.views]
                if inserts and body is not None:
                    if body.descriptor is not None:
                        self._inserts = inserts
                    else:
                        views = _with_inserts(views, inserts)
                # A body in a file follows piece by piece.
                self._write([head, *views])
            else:
                self._on_empty()
                return

    def _write_piece(self, body: Slot) -> bool:
        """Write the next piece of a body that is in a file; return whether that could be read."""
        most = FILE_READ_SIZE
        if self._inserts:
            offset, inserted = self._inserts[0]
            if offset == self._offset:
                self._inserts = self._inserts[1:]
                self._write([inserted])
                return True
            most = min(most, offset - self._offset)
        try:
            piece = body.read(self._offset, most)
        except OSError as error:
            _log.error("closing a connection: a result cannot be read from the spool: %s", error)
            return False
        self._offset += len(piece)
        self._write([piece])
        return True

    def _write(self, data: list[bytes | memoryview]) -> None:
        self._written += sum(map(len, data))
        self._transport.writelines(data)
        # After each write, because this compares the buffer with the limits: asyncio's `writelines` does not
        # in Python 3.12.0 to 3.12.8, 3.13.0 and 3.13.1 (CVE-2024-12254), and chunks would be reused while
        # they are still to be sent. Not before the first one: a transport with TLS may then pause us for its
        # own bytes, before the connection is made.
        self._transport.set_write_buffer_limits(high=self._high_water, low=0)


def _with_inserts(views: list[bytes | memoryview], inserts: Inserts) -> list[bytes | memoryview]:
    """Return the pieces of a body with the ``inserts`` between."""
    pieces: list[bytes | memoryview] = []
    left = deque(inserts)
    begins = 0
    for view in views:
        taken = 0
        while left and left[0][0] < begins + len(view):
            offset, inserted = left.popleft()
            pieces += [view[taken : offset - begins], inserted]
            taken = offset - begins
        pieces.append(view[taken:])
        begins += len(view)
    return [*pieces, *(inserted for _, inserted in left)]
