"""Connections that are held open beside the load and send nothing.

A server lets no address have most of its places, so to a server of this machine they come from ``ADDRESSES``
addresses of the loopback network.
"""

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from bench.load.record import IdleStats
from bench.wire import Connection
from vipsrv.protocol import Kind

ADDRESSES = 10
PLACES = 1.25
"""Places that a server needs over the connections that it is to hold: an address gets more while some are
free."""

_LOOPBACK = "127.0.0.1"
_SECONDS = 30.0


class IdleConnections:
    """``count`` connections held while the ``with`` lasts. Raises ``OSError`` if one cannot be made.

    Each has sent a PING of version 2 and read the reply, so that the server has accepted it and not just left
    it in the listener's backlog.
    """

    def __init__(self, host: str, port: int, count: int) -> None:
        self._connections: list[Connection] = []
        with ExitStack() as stack:
            for number in range(count):
                source = f"127.0.0.{2 + number % ADDRESSES}" if host == _LOOPBACK else None
                opened = Connection(port, host, timeout=_SECONDS, source=source)
                connection = stack.enter_context(opened)
                connection.request(Kind.PING)
                self._connections.append(connection)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def stats(self) -> IdleStats:
        """Count the connections, and those of them that the server has not closed."""
        still_open = sum(connection.is_open for connection in self._connections)
        return IdleStats(asked=len(self._connections), open_at_end=still_open)
