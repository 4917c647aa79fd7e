"""A stream that is being sent as the reply to the first request of a connection."""

from collections.abc import Callable

from vipsrv.server.connections.outbox import Outbox
from vipsrv.server.http.messages import HttpStream
from vipsrv.server.http.replies import LAST_CHUNK, pack_chunk

MOST_STREAM_PIECES = 64
"""Pieces of a stream that wait for a client; further ones are dropped."""


class RunningStream:
    """Sends what ``stream`` brings, ``in_chunks`` or, for HTTP/1.0, as it is, until its end."""

    def __init__(self, stream: HttpStream, outbox: Outbox, *, in_chunks: bool) -> None:
        self._outbox = outbox
        self._in_chunks = in_chunks
        self._unsubscribe: Callable[[], None] | None = _nothing  # `subscribe` may send at once
        self._unsubscribe = stream.subscribe(self._send)

    def end(self) -> None:
        """End the subscription, and with it the reply."""
        self.abandon()
        if self._in_chunks:
            self._outbox.put(LAST_CHUNK)

    def abandon(self) -> None:
        """End the subscription: the client has disconnected."""
        unsubscribe, self._unsubscribe = self._unsubscribe, None
        if unsubscribe is not None:
            unsubscribe()

    def _send(self, data: bytes) -> bool:
        if self._unsubscribe is None or len(self._outbox) >= MOST_STREAM_PIECES:
            return False
        if data:
            self._outbox.put(pack_chunk(data) if self._in_chunks else data)
        return True


def _nothing() -> None:
    """End a subscription that has not begun."""
