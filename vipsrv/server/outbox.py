"""Replies on their way to one client, in order, one at a time, with the transport's backpressure.

A result's memory goes back to the spool when the kernel has taken its last byte, not before: the transport's
high-water mark is zero, so "not paused" means "nothing of ours is left in it".
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from vipsrv.storage.spool import Slot

PROGRESS_SIZE = 64 * 1024
"""Bytes that must move in each receive timeout, so that a trickle does not hold a place for ever."""

_FILE_READ_SIZE = 256 * 1024

_log = logging.getLogger(__name__)


class Outbox:
    """What is to be written to ``transport``; ``on_empty`` is called when all of it has been taken."""

    def __init__(self, transport: asyncio.WriteTransport, on_empty: Callable[[], None]) -> None:
        transport.set_write_buffer_limits(high=0)
        self._transport = transport
        self._on_empty = on_empty
        self._waiting: deque[tuple[bytes, Slot | None]] = deque()
        self._sending: Slot | None = None
        self._offset = 0
        self._blocked = False
        self._closed = False
        self._written = 0
        self._taken_at_mark = 0
        self._expires: float | None = None

    def __len__(self) -> int:
        """Replies that are not wholly taken."""
        return len(self._waiting) + (self._blocked or self._sending is not None)

    def put(self, head: bytes, body: Slot | None = None) -> None:
        """Send ``head`` and then all of ``body``, which the outbox closes afterwards."""
        if self._closed:
            if body is not None:
                body.close()
            return
        self._waiting.append((head, body))
        if len(self) == 1:
            self._pump()

    def pause(self) -> None:
        """The transport still holds bytes of ours."""
        self._blocked = True

    def resume(self) -> None:
        """The transport has handed everything to the kernel."""
        self._blocked = False
        self._pump()

    def is_stuck(self, now: float, timeout: float) -> bool:
        """Whether the client took less than ``PROGRESS_SIZE`` bytes, and not all, in ``timeout`` seconds.

        To be asked now and then, with ``now`` of ``time.monotonic``.
        """
        if not self:
            self._expires = None
            return False
        taken = self._written - self._transport.get_write_buffer_size()
        if self._expires is None or taken - self._taken_at_mark >= PROGRESS_SIZE:
            self._taken_at_mark = taken
            self._expires = now + timeout
        return now > self._expires

    def close(self) -> None:
        """The connection is gone: give all memory back."""
        self._closed = True
        if self._sending is not None:
            self._sending.close()
            self._sending = None
        for _, body in self._waiting:
            if body is not None:
                body.close()
        self._waiting.clear()

    def _pump(self) -> None:
        while not self._blocked and not self._closed:
            body = self._sending
            if body is not None and body.descriptor is not None and self._offset < body.size:
                try:
                    piece = body.read(self._offset, _FILE_READ_SIZE)
                except OSError as error:
                    # The reply has begun, so that nothing else can be said.
                    _log.error("a result cannot be read from the spool, its connection is closed: %s", error)
                    self._transport.abort()
                    return
                self._offset += len(piece)
                self._write([piece])
            elif body is not None:
                body.close()
                self._sending = None
            elif self._waiting:
                head, self._sending = self._waiting.popleft()
                self._offset = 0
                # What is in a file follows piece by piece.
                self._write([head, *(self._sending.views if self._sending is not None else ())])
            else:
                self._on_empty()
                return

    def _write(self, data: list[bytes | memoryview]) -> None:
        self._written += sum(map(len, data))
        self._transport.writelines(data)
        # So that it looks at its limits: asyncio's `writelines` does not in Python 3.12.0 to 3.12.8, 3.13.0
        # and 3.13.1 (CVE-2024-12254), and chunks would be used again while they are still to be sent.
        self._transport.set_write_buffer_limits(high=0)
