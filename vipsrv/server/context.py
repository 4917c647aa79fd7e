"""The parts of the server that a connection may use. The gateway creates them; connections do not know it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from vipsrv.errors import Draining, TooLarge
from vipsrv.server.admission import Admission
from vipsrv.server.settings import ServerSettings
from vipsrv.storage.spool import Spool


class Connection(Protocol):
    """The interface of an open connection of any protocol."""

    def watch(self, now: float) -> None:
        """Check deadlines and timeouts; called several times a second with ``time.monotonic()``."""

    def drain(self) -> None:
        """Finish the requests that have begun, then close."""

    def stop(self) -> None:
        """Answer waiting clients with ``Draining``, then close."""

    def abort(self) -> None:
        """Close at once, without sending unsent replies."""


class OpenConnections:
    """The open connections. At most ``limit`` are served; excess clients get ``busy`` and are disconnected.

    The connection of an excess client stays open for some seconds. At most ``limit`` of these are open.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: set[Connection] = set()
        self._turned_away: set[Connection] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()

    @property
    def served(self) -> int:
        """The number of connections, without excess ones."""
        return len(self._open) - len(self._turned_away)

    def __iter__(self) -> Iterator[Connection]:
        """All open connections; the set may change meanwhile."""
        return iter(list(self._open))

    def add(self, connection: Connection) -> None:
        """Register a client that has connected."""
        self._open.add(connection)
        self._none_open.clear()

    def turn_away(self, connection: Connection) -> bool:
        """Stop counting an excess client; return whether it may still be sent ``busy``."""
        self._turned_away.add(connection)
        return len(self._turned_away) <= self.limit

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._open.discard(connection)
        self._turned_away.discard(connection)
        if not self._open:
            self._none_open.set()

    async def wait_until_closed(self, seconds: float) -> None:
        """Return when no connection is open, or after ``seconds``."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._none_open.wait(), seconds)


@dataclass(slots=True, eq=False, kw_only=True)
class ServerContext:
    """The parts of the server that its connections share.

    ``describe`` returns the meta of a HELLO reply; ``check_ready`` raises ``Draining`` if the server has had
    no worker for a while.
    """

    settings: ServerSettings
    spool: Spool
    admission: Admission
    describe: Callable[[], dict[str, Any]]
    check_ready: Callable[[], None]
    connections: OpenConnections = field(init=False)
    draining: bool = False
    """Whether the server is shutting down: requests that arrive now are refused."""

    def __post_init__(self) -> None:
        self.connections = OpenConnections(self.settings.connections)

    def check_upload(self, size: int) -> None:
        """Raise ``TooLarge`` or ``Draining`` if a request with ``size`` bytes of body cannot be accepted."""
        limit = self.settings.max_upload
        if size > limit:
            raise TooLarge(f"the image is {size} bytes, {size - limit} over the limit of {limit}")
        if self.draining:
            raise Draining("the server is shutting down")
