"""What the connection pools of the blocking and the asyncio client have in common."""

import os
import weakref
from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar

from vipsrv.address import Address
from vipsrv.client.embedded import EmbeddedServer
from vipsrv.client.requests import ProtocolVersion
from vipsrv.client.timeouts import PING_OF_SEVERAL, Timeout
from vipsrv.client.tls import ClientTls


class PooledConnection(Protocol):
    """The part of a connection that a pool of either kind uses."""

    calls: int

    @property
    def ended(self) -> bool:
        """Whether it is closed and nothing uses it any more."""

    @property
    def usable(self) -> bool:
        """Whether another request may be sent over it."""

    def retire(self) -> None:
        """Send nothing more over it, and close it when all that is in flight has ended."""


class Forgetful(Protocol):
    """What holds something that a forked child must not use."""

    def forget(self) -> None:
        """In a forked child: leave it to the parent."""


Connection = TypeVar("Connection", bound=PooledConnection)


class ConnectionPool(ABC, Generic[Connection]):
    """Connections to one server, which may be an embedded one that is started with the first connection.

    Version 2 requests share ``most`` connections; a further one is made when all of them are in use. Each
    version 1 request has its own. ``token`` goes with the first request of each connection. With ``tls`` all
    of them are encrypted.
    """

    def __init__(
        self,
        server: Address | EmbeddedServer,
        protocol: ProtocolVersion,
        timeout: Timeout,
        max_reply_size: int,
        *,
        token: str | None = None,
        tls: ClientTls | None = None,
        most: int = 1,
    ) -> None:
        self.server = server
        self._most = most
        self._counted = int(most > 1)  # what a call adds to the `calls` of its connection
        self._protocol: ProtocolVersion = protocol
        self._timeout = timeout
        self._max_reply_size = max_reply_size
        self._tls = tls
        self._token = token
        self._connections: list[Connection] = []
        self._closed = False
        forget_at_fork(self)

    @property
    def in_use(self) -> bool:
        """Whether a connection or an embedded server would be left behind without ``close``."""
        server_runs = isinstance(self.server, EmbeddedServer) and self.server.running
        return server_runs or any(not connection.ended for connection in self._connections)

    def retire(self) -> None:
        """Close the connections when all that is in flight has ended, as no more calls are meant to come.

        One that does come makes a new connection.
        """
        for connection in list(self._connections):
            connection.retire()

    @abstractmethod
    def release(self) -> None:
        """Close without waiting for the connections, for a client that is garbage-collected."""

    @abstractmethod
    def forget(self) -> None:
        """In a forked child: leave the connections to the parent; the next call makes its own."""

    def _best(self) -> tuple[Connection | None, bool]:
        """Return the usable connection with the fewest calls, and whether to make another one."""
        if self._protocol == 1:
            return None, True
        if self._most == 1:
            for connection in self._connections:
                if connection.usable:
                    return connection, False
            return None, True
        usable = [connection for connection in self._connections if connection.usable]
        best = min(usable, key=lambda connection: connection.calls, default=None)
        return best, best is None or (best.calls > 0 and len(usable) < self._most)

    @property
    def _probe_timeout(self) -> Timeout:
        """The time that a server has to show that it works."""
        seconds = self._timeout.patience or PING_OF_SEVERAL
        return Timeout(connect=seconds, send=seconds, reply=seconds, ping=None)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")

    def _keep(self, connection: Connection) -> None:
        """Add a new connection; forget those that have ended."""
        self._connections = [one for one in self._connections if not one.ended]
        self._connections.append(connection)

    def _take_connections(self) -> list[Connection]:
        """Make no more connections; return those that have to be closed."""
        self._closed = True
        return self._forget_connections()

    def _forget_connections(self) -> list[Connection]:
        connections, self._connections = self._connections, []
        return connections

    def _stop_server(self) -> None:
        """Stop an embedded server."""
        if isinstance(self.server, EmbeddedServer):
            self.server.stop()

    def _forget_server(self) -> None:
        if isinstance(self.server, EmbeddedServer):
            self.server.forget()


_FORGET: "weakref.WeakSet[Forgetful]" = weakref.WeakSet()


def forget_at_fork(one: Forgetful) -> None:
    """Have its method ``forget`` called in each forked child, as long as it exists."""
    _FORGET.add(one)


def _forget_all() -> None:
    for one in list(_FORGET):
        one.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
