"""Listening sockets before a server accepts from them: opened by this process or given, and their files."""

import errno
import logging
import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vipsrv.address import Address, Wire
from vipsrv.errors import StartFailed

KEEP_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""Arguments for asyncio's servers. Python 3.13 removes the file of a unix socket that it closes, even if
another server still uses it."""

_log = logging.getLogger(__name__)


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


@dataclass(frozen=True, slots=True)
class OpenListener:
    """A listening socket that another process has opened: systemd, or the server that hands over to this one.

    ``owned``: whether the file of a unix socket becomes this server's own, to remove when it stops.
    """

    sock: socket.socket
    address: Address
    owned: bool = False

    @classmethod
    def of(
        cls,
        descriptor: int,
        origin: str,
        *,
        tls: bool = False,
        wire: Wire = Wire.BINARY,
        owned: bool = False,
    ) -> "OpenListener":
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
        return cls(sock, replace(address, tls=tls, wire=wire), owned)

    def file(self) -> UnixSocketFile | None:
        """Return the file that this server has to remove, ``None`` if there is none."""
        if not self.owned or not self.address.path:
            return None
        with suppress(OSError):  # somebody has removed it
            return UnixSocketFile.at(Path(self.address.path))
        return None


def open_unix_socket(path: Path, mode: int) -> socket.socket:
    """Return a socket that listens at ``path``, whose file has this ``mode``. Raises ``StartFailed``."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        with listening_on(Address(path=str(path))):
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
def listening_on(address: Address) -> Iterator[None]:
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
