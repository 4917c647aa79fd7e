"""The sockets on which a server listens: bound first, listening once the workers have started."""

import asyncio
import errno
import logging
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vipsrv.address import Address
from vipsrv.errors import StartFailed

_BACKLOG = 4096
"""Connections that may wait in the kernel for each listener."""

_ACCEPTS_AT_ONCE = 64
"""asyncio takes its ``backlog`` also for how often it tries to accept in one turn of the event loop, and
reports each try that fails: with 4,096 and no descriptor left that was 65,536 reports in 3.6 s."""

_KEEP_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""Python 3.13 removes the file of a unix socket that it closes, even if another server still uses it."""

_log = logging.getLogger(__name__)

MakeConnection = Callable[[], asyncio.BaseProtocol]
"""Makes the connection for a client that has connected to a listener."""


@dataclass(frozen=True, slots=True)
class OpenListener:
    """A listening socket that another process has opened: systemd, or the server that hands over to this one.

    ``owned``: whether the file of a unix socket becomes this server's own, to remove when it stops.
    """

    sock: socket.socket
    address: Address
    tls: bool = False
    owned: bool = False

    @classmethod
    def of(cls, descriptor: int, origin: str, *, tls: bool = False, owned: bool = False) -> "OpenListener":
        """Take over a descriptor. Raises ``StartFailed``, which names ``origin``, if it is no listener."""
        try:
            os.set_inheritable(descriptor, False)
            sock = socket.socket(fileno=descriptor)
        except OSError as error:
            raise StartFailed(f"{origin} is not a listening socket: {error.strerror}") from None
        try:
            address = _listening_address(sock)
        except (OSError, ValueError) as error:
            sock.detach()
            raise StartFailed(f"{origin} is not a listening stream socket: {error}") from None
        sock.setblocking(False)
        return cls(sock, address, tls, owned)

    def file(self) -> "UnixSocketFile | None":
        """Return the file that this server has to remove, ``None`` if there is none."""
        if not self.owned or not self.address.path:
            return None
        with suppress(OSError):  # somebody has removed it
            return UnixSocketFile.at(Path(self.address.path))
        return None


@dataclass(frozen=True, slots=True)
class OfferedListener:
    """A listening socket of this server, as it is handed over to another one."""

    descriptor: int
    address: Address
    tls: bool
    owned: bool


@dataclass(frozen=True, slots=True)
class _Bound:
    address: Address
    server: asyncio.Server
    tls: bool = False
    file: "UnixSocketFile | None" = None


class Listeners:
    """All listeners of one server: ``bind`` or ``adopt`` each, ``start``, then ``close``."""

    def __init__(self) -> None:
        self._bound: list[_Bound] = []
        self.shared = False
        """Whether another server listens on the same sockets: then ``close`` leaves the files to that."""

    async def bind(self, address: Address, make_connection: MakeConnection) -> None:
        """Bind a socket to ``address``; nobody can connect yet. Raises ``StartFailed``."""
        loop = asyncio.get_running_loop()
        file = None
        with _listening_on(address):
            if address.path:
                path = Path(address.path)
                remove_stale_socket(path)
                server = await loop.create_unix_server(
                    make_connection,
                    address.path,
                    backlog=_ACCEPTS_AT_ONCE,
                    start_serving=False,
                    **_KEEP_FILE,
                )
                file = UnixSocketFile.at(path)
            else:
                server = await loop.create_server(
                    make_connection, address.host, address.port, backlog=_ACCEPTS_AT_ONCE, start_serving=False
                )
        self._bound.append(_Bound(address, server, file=file))

    async def adopt(self, listener: OpenListener, make_connection: MakeConnection) -> None:
        """Use a socket that another process has opened. Raises ``StartFailed``."""
        loop = asyncio.get_running_loop()
        if listener.tls:  # where a listener gets its certificate
            raise StartFailed(f"{listener.address} is to be a TLS listener, which this server does not have")
        with _listening_on(listener.address):
            if listener.address.path:
                server = await loop.create_unix_server(
                    make_connection,
                    sock=listener.sock,
                    backlog=_ACCEPTS_AT_ONCE,
                    start_serving=False,
                    **_KEEP_FILE,
                )
            else:
                server = await loop.create_server(
                    make_connection, sock=listener.sock, backlog=_ACCEPTS_AT_ONCE, start_serving=False
                )
        self._bound.append(_Bound(listener.address, server, listener.tls, listener.file()))

    async def start(self) -> list[Address]:
        """Accept clients; return the addresses, with real ports. Raises ``StartFailed``."""
        for bound in self._bound:
            with _listening_on(bound.address):
                await bound.server.start_serving()
                for sock in bound.server.sockets:
                    _enlarge_backlog(sock.fileno())
        return [offered.address for offered in self.offer()]

    def offer(self) -> list[OfferedListener]:
        """Return the sockets of all listeners, each with its real address."""
        return [
            OfferedListener(
                sock.fileno(),
                bound.address if bound.address.path else Address(*sock.getsockname()[:2]),
                bound.tls,
                owned=bound.file is not None,
            )
            for bound in self._bound
            for sock in bound.server.sockets
        ]

    def close(self) -> None:
        """Accept no more clients."""
        # Before they are closed: another server takes the place of a socket on which none listens.
        if not self.shared:
            for bound in self._bound:
                if bound.file is not None:
                    bound.file.remove()
        for bound in self._bound:
            bound.server.close()
        self._bound = []


def open_unix_socket(path: Path, mode: int) -> socket.socket:
    """Return a socket that listens at ``path``, whose file has this ``mode``. Raises ``StartFailed``."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        with _listening_on(Address(path=str(path))):
            remove_stale_socket(path)
            sock.bind(str(path))
            path.chmod(mode)  # before anybody can connect
            sock.listen()
    except StartFailed:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


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


def _listening_address(sock: socket.socket) -> Address:
    """Return where a stream socket listens. Raises ``OSError`` or ``ValueError`` if it is no listener."""
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_STREAM:
        raise ValueError("it is not a stream socket")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError("it does not listen")
    if sock.family == socket.AF_UNIX:
        name = sock.getsockname()
        # An abstract socket has no file, and its name is bytes.
        return Address(path=f"@{name[1:].decode(errors='replace')}" if isinstance(name, bytes) else name)
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise ValueError("it is neither a TCP nor a unix socket")
    return Address(*sock.getsockname()[:2])


@dataclass(frozen=True, slots=True)
class UnixSocketFile:
    """The file of a unix socket that this server has made or was given."""

    path: Path
    device: int
    inode: int

    @classmethod
    def at(cls, path: Path) -> "UnixSocketFile":
        """Return the file that is at ``path`` now. Raises ``OSError``."""
        status = path.stat()
        return cls(path, status.st_dev, status.st_ino)

    def remove(self) -> None:
        """Remove it, but no other file that has been put in its place."""
        try:
            if UnixSocketFile.at(self.path) == self:
                self.path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.warning("the socket %s cannot be removed: %s", self.path, error.strerror)


def remove_stale_socket(path: Path) -> None:
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
