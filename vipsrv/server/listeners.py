"""The sockets on which a server listens: bound first, listening once the workers have started."""

import asyncio
import errno
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vipsrv.address import Address
from vipsrv.errors import StartFailed

_BACKLOG = 4096
"""Connections that may wait in the kernel for each listener."""

_ACCEPTS_AT_ONCE = 64
"""asyncio takes its ``backlog`` also for how often it tries to accept in one turn of the event loop, and
reports each try that fails: with 4,096 and no descriptor left that was 65,536 reports in 3.6 s."""

_log = logging.getLogger(__name__)

MakeConnection = Callable[[], asyncio.BaseProtocol]
"""Makes the connection for a client that has connected to a listener."""


class Listeners:
    """All listeners of one server, of TCP and unix sockets: ``bind`` each, ``start``, then ``close``."""

    def __init__(self) -> None:
        self._bound: list[tuple[Address, asyncio.Server]] = []
        self._unix_sockets: list[_UnixSocket] = []

    async def bind(self, address: Address, make_connection: MakeConnection) -> None:
        """Bind a socket to ``address``; nobody can connect yet. Raises ``StartFailed``."""
        loop = asyncio.get_running_loop()
        with _listening_on(address):
            if address.path:
                path = Path(address.path)
                _remove_stale_socket(path)
                server = await loop.create_unix_server(
                    make_connection, address.path, backlog=_ACCEPTS_AT_ONCE, start_serving=False
                )
                self._unix_sockets.append(_UnixSocket.at(path))
            else:
                server = await loop.create_server(
                    make_connection, address.host, address.port, backlog=_ACCEPTS_AT_ONCE, start_serving=False
                )
        self._bound.append((address, server))

    async def start(self) -> list[Address]:
        """Accept clients; return the addresses, with real ports. Raises ``StartFailed``."""
        for address, server in self._bound:
            with _listening_on(address):
                await server.start_serving()
                for sock in server.sockets:
                    _enlarge_backlog(sock.fileno())
        return [real for address, server in self._bound for real in _real_addresses(address, server)]

    def close(self) -> None:
        """Accept no more clients."""
        # Before they are closed: another server takes the place of a socket on which none listens.
        for unix_socket in self._unix_sockets:
            unix_socket.remove()
        self._unix_sockets = []
        for _, server in self._bound:
            server.close()
        self._bound = []


@contextmanager
def _listening_on(address: Address) -> Iterator[None]:
    """Turn errors of listening on an address into ``StartFailed``."""
    try:
        yield
    except socket.gaierror as error:  # its numbers are not those of `os.strerror`
        reason = str(error.strerror)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
    except UnicodeError:
        reason = "not a valid host name"
    else:
        return
    raise StartFailed(f"cannot listen on {address}: {reason}; choose another address") from None


def _enlarge_backlog(listener: int) -> None:
    """Let more connections wait for a listening socket than are accepted at once. Raises ``OSError``."""
    with socket.socket(fileno=os.dup(listener)) as own:
        own.listen(_BACKLOG)


def _real_addresses(address: Address, server: asyncio.Server) -> list[Address]:
    if address.path:
        return [address]
    names = [sock.getsockname() for sock in server.sockets]
    return [Address(name[0], name[1], tls=address.tls) for name in names]


@dataclass(frozen=True, slots=True)
class _UnixSocket:
    """The file of a unix socket that this server has made."""

    path: Path
    device: int
    inode: int

    @classmethod
    def at(cls, path: Path) -> "_UnixSocket":
        """Return the file that is at ``path`` now. Raises ``OSError``."""
        status = path.stat()
        return cls(path, status.st_dev, status.st_ino)

    def remove(self) -> None:
        """Remove it, but no other file that has been put in its place."""
        try:
            if _UnixSocket.at(self.path) == self:
                self.path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.warning("the socket %s cannot be removed: %s", self.path, error.strerror)


def _remove_stale_socket(path: Path) -> None:
    """Remove a unix socket on which no process listens, and no other file. Raises ``OSError``."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # connecting would block if the listener's backlog is full
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
