"""A connection that takes one line, "SIZE WIDTH HEIGHT", and the image, and answers with a line and the result."""

import asyncio
from typing import cast

from vipsrv.server.connections.outbox import Outbox
from vipsrv.server.context import ServerContext
from vipsrv.server.exchange import Exchange
from vipsrv.server.report import report_json
from vipsrv.workers.channel import Operation


class LineConnection(asyncio.Protocol):
    """One client of the line protocol: one image, one answer."""

    _transport: asyncio.Transport
    _outbox: Outbox

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._head = b""
        self._exchange: Exchange | None = None
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the client."""
        self._transport = cast("asyncio.Transport", transport)
        self._outbox = Outbox(self._transport, self._transport.close)
        self._context.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Read the line, then the image into its slot."""
        if self._exchange is None:
            line, newline, data = (self._head + data).partition(b"\n")
            if not newline:
                self._head = line
                return
            self._left, width, height = map(int, line.split())
            self._exchange = Exchange(self._context, Operation.RESIZE, self._finished)
            self._exchange.accept({"width": width, "height": height}, self._left)
        slot = self._exchange.slot
        while data and self._left and slot is not None:
            room = slot.room()
            part, data = data[: len(room)], data[len(room) :]
            room[: len(part)] = part
            slot.filled(len(part))
            self._left -= len(part)
            if not self._left:
                self._exchange.body_ended()

    def pause_writing(self) -> None:
        """The client is slower than its reply."""
        self._outbox.pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        asyncio.get_running_loop().call_soon(self._outbox.resume)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why makes no difference
        """Give everything back."""
        self._context.connections.remove(self)
        self._outbox.close()

    def watch(self, now: float) -> None:
        """Check the deadline."""
        if self._exchange is not None:
            self._exchange.watch(now)

    def drain(self) -> None:
        """Close unless an image is in flight."""
        if self._exchange is None:
            self._transport.close()

    def stop(self) -> None:
        """Close at once."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _finished(self, exchange: Exchange) -> None:
        outcome = exchange.take_outcome()
        if outcome.error is not None:
            self._outbox.put(f"error {outcome.error.code}: {outcome.error}\n".encode())
            return
        meta, _ = report_json(outcome, exchange.timeline)
        self._outbox.put(meta + b"\n", outcome.result)
