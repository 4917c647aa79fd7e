"""The addresses on which a server listens: bound or given first, accepting once the workers have started.

::

    bind, adopt ──► BOUND ── start ──► ACCEPTING ── pause ──► PAUSED ── resume ──► ACCEPTING
                      └───────────────────┴───────────────────┴── close ──► CLOSED

While a TCP listener is PAUSED, connections wait in the kernel. uvloop cannot be told to stop accepting, and
without descriptors it accepts and closes every connection. So its listening socket is closed, and the kernel
keeps the queue, because the listener has a duplicate of it; another server continues with that.

Two kinds need no pause. asyncio's own event loop stops accepting by itself for a second when no descriptor is
left. Clients of a unix socket are trusted.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from vipsrv.address import Address, Wire
from vipsrv.errors import StartFailed
from vipsrv.server.listening_sockets import (
    KEEP_FILE,
    OpenListener,
    UnixSocketFile,
    listening_on,
    remove_stale_socket,
)

BACKLOG = 4096
"""Connections that may wait in the kernel for each listener."""

ACCEPTS_AT_ONCE = 64
"""asyncio takes its ``backlog`` also for how often it tries to accept in one turn of the event loop, and
reports each try that fails: with 4,096 and no descriptor left that was 65,536 reports in 3.6 s."""

MakeConnection = Callable[[], asyncio.BaseProtocol]
"""Makes the connection for a client that has connected to a listener."""


class ListenerState(Enum):
    """The states of a listener; see the diagram above."""

    BOUND = "bound"
    ACCEPTING = "accepting"
    PAUSED = "paused"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class OfferedListener:
    """A listening socket of this server, as it is handed over to another one; see ``OpenListener``."""

    descriptor: int
    address: Address
    owned: bool


class Listener:
    """Listens on ``address``, of which a host name may have several sockets; made by ``bind`` or ``adopt``.

    ``file`` is that of a unix socket, if this server has to remove it.
    """

    def __init__(
        self,
        address: Address,
        make_connection: MakeConnection,
        server: asyncio.Server,
        file: UnixSocketFile | None = None,
    ) -> None:
        self._address = address
        self._make_connection = make_connection
        self._servers = [server]
        self._can_pause = not address.path and not _pauses_itself(server)
        self._sockets: list[socket.socket] = []  # duplicates of those of the server, if it can be paused
        self._file = file
        self._state = ListenerState.BOUND

    @classmethod
    async def bind(cls, address: Address, make_connection: MakeConnection) -> "Listener":
        """Take the address, without accepting connections yet. Raises ``StartFailed``."""
        loop = asyncio.get_running_loop()
        with listening_on(address):
            if not address.path:
                server = await loop.create_server(
                    make_connection, address.host, address.port, backlog=ACCEPTS_AT_ONCE, start_serving=False
                )
                return cls(address, make_connection, server)
            path = Path(address.path)
            remove_stale_socket(path)
            server = await loop.create_unix_server(
                make_connection, address.path, backlog=ACCEPTS_AT_ONCE, start_serving=False, **KEEP_FILE
            )
            return cls(address, make_connection, server, UnixSocketFile.at(path))

    @classmethod
    async def adopt(cls, given: OpenListener, make_connection: MakeConnection) -> "Listener":
        """Use a socket that another process has opened. Raises ``StartFailed``."""
        loop = asyncio.get_running_loop()
        with listening_on(given.address):
            if not given.address.path:
                server = await loop.create_server(
                    make_connection, sock=given.sock, backlog=ACCEPTS_AT_ONCE, start_serving=False
                )
            else:
                server = await loop.create_unix_server(
                    make_connection,
                    sock=given.sock,
                    backlog=ACCEPTS_AT_ONCE,
                    start_serving=False,
                    **KEEP_FILE,
                )
        return cls(given.address, make_connection, server, given.file())

    @property
    def state(self) -> ListenerState:
        """The current state."""
        return self._state

    @property
    def wire(self) -> Wire:
        """What is spoken there."""
        return self._address.wire

    @property
    def addresses(self) -> list[Address]:
        """The addresses of all sockets, with real ports."""
        if self._address.path:
            return [self._address]
        names = [sock.getsockname() for server in self._servers for sock in server.sockets]
        return [replace(self._address, host=name[0], port=name[1]) for name in names]

    async def start(self) -> None:
        """Accept connections. Raises ``StartFailed``."""
        (server,) = self._servers
        with listening_on(self._address):
            await server.start_serving()
            sockets = [socket.socket(fileno=os.dup(sock.fileno())) for sock in server.sockets]
            for sock in sockets:
                sock.listen(BACKLOG)
        if self._can_pause:
            self._sockets = sockets
        else:
            for sock in sockets:
                sock.close()
        self._state = ListenerState.ACCEPTING

    def pause(self) -> None:
        """Leave further connections in the kernel, if that is needed (see above) and not done yet."""
        if self._can_pause and self._state is ListenerState.ACCEPTING:
            self._close_servers()
            self._state = ListenerState.PAUSED

    async def resume(self) -> None:
        """Accept again after ``pause``. Raises ``OSError``, and remains paused, if that is not possible."""
        if self._state is not ListenerState.PAUSED:
            return
        loop = asyncio.get_running_loop()
        try:
            for sock in self._sockets:
                self._servers.append(
                    await loop.create_server(self._make_connection, sock=sock.dup(), backlog=ACCEPTS_AT_ONCE)
                )
                sock.listen(BACKLOG)
        except OSError:
            self._close_servers()
            raise
        self._state = ListenerState.ACCEPTING

    def offer(self) -> list[OfferedListener]:
        """Return all sockets, for a server that takes the place of this one."""
        descriptors = [sock.fileno() for sock in self._sockets] or [
            sock.fileno() for server in self._servers for sock in server.sockets
        ]
        return [
            OfferedListener(descriptor, self._address, owned=self._file is not None)
            for descriptor in descriptors
        ]

    def close(self, *, keep_file: bool = False) -> None:
        """Give the address up. The file of a unix socket stays if ``keep_file``."""
        # First, because another server takes the place of a socket on which none listens.
        if self._file is not None and not keep_file:
            self._file.remove()
            self._file = None
        self._close_servers()
        for sock in self._sockets:
            sock.close()
        self._sockets = []
        self._state = ListenerState.CLOSED

    def _close_servers(self) -> None:
        for server in self._servers:
            server.close()
        self._servers = []


class Listeners:
    """All listeners of one server."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self.shared = False
        """Whether another server listens on the same sockets: then ``close`` leaves the files to that."""

    async def bind(self, address: Address, make_connection: MakeConnection) -> None:
        """Take an address, without accepting connections yet. Raises ``StartFailed``."""
        self._listeners.append(await Listener.bind(address, make_connection))

    async def serve(self, address: Address, make_connection: MakeConnection) -> None:
        """Take an address, and accept connections at once. Raises ``StartFailed``, with nothing taken."""
        listener = await Listener.bind(address, make_connection)
        try:
            await listener.start()
        except StartFailed:
            listener.close()
            raise
        self._listeners.append(listener)

    def addresses(self, wire: Wire) -> list[Address]:
        """Return the addresses at which ``wire`` is spoken, with real ports."""
        return [
            address for listener in self._listeners if listener.wire is wire for address in listener.addresses
        ]

    async def adopt(self, given: OpenListener, make_connection: MakeConnection) -> None:
        """Use a socket that another process has opened, without accepting yet. Raises ``StartFailed``."""
        self._listeners.append(await Listener.adopt(given, make_connection))

    async def borrow(self, given: OpenListener, make_connection: MakeConnection) -> Listener:
        """Accept connections from the socket of another process, until ``give_back``. Raises
        ``StartFailed``.
        """
        listener = await Listener.adopt(given, make_connection)
        self._listeners.append(listener)
        await listener.start()
        return listener

    def give_back(self, listener: Listener) -> None:
        """Accept no more connections from a borrowed socket. Those that wait are left to its owner."""
        if listener in self._listeners:
            self._listeners.remove(listener)
            listener.close()

    def offer(self) -> list[OfferedListener]:
        """Return the sockets of all listeners."""
        return [offered for listener in self._listeners for offered in listener.offer()]

    async def start(self) -> list[Address]:
        """Accept connections; return the addresses, with real ports. Raises ``StartFailed``."""
        for listener in self._listeners:
            if listener.state is ListenerState.BOUND:
                await listener.start()
        return [address for listener in self._listeners for address in listener.addresses]

    async def pause_if(self, exhausted: bool) -> None:  # noqa: FBT001 - the name says what it is
        """Leave connections in the kernel while no descriptor is left for them."""
        for listener in list(self._listeners):  # some may be borrowed or given back meanwhile
            if exhausted:
                listener.pause()
            else:
                with suppress(OSError):  # tried again by the next check
                    await listener.resume()

    def close(self, *, but: Wire | None = None) -> None:
        """Give all addresses up, but not those at which ``but`` is spoken."""
        kept = [listener for listener in self._listeners if listener.wire is but]
        for listener in self._listeners:
            if listener not in kept:
                listener.close(keep_file=self.shared)
        self._listeners = kept


def _pauses_itself(server: object) -> bool:
    """Whether a server stops accepting for a while when no descriptor is left."""
    return isinstance(server, asyncio.Server)
