"""The listening sockets of a server with several gateways, which the supervisor keeps open.

Each gateway has its own socket of a TCP address (``SO_REUSEPORT``): the kernel chooses one of them for a new
connection by a hash of both ends' addresses. Connections that wait at the socket of a gateway that has died
wait for the gateway that uses it next. A unix socket, and a socket that systemd has opened, is shared by all:
the first gateway that wakes up has the connection.

The operator's listener has one socket, which belongs to the first gateway.

The first socket of a TCP address listens before ``SO_REUSEPORT`` is set on it. Otherwise a second server of
the same user could listen on the same port by mistake, and get a part of the connections.
"""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vipsrv.address import Address, Wire
from vipsrv.errors import StartFailed
from vipsrv.server.gateways.shares import items_of
from vipsrv.server.listeners import BACKLOG, OfferedListener
from vipsrv.server.listening_sockets import (
    OpenListener,
    UnixSocketFile,
    listening_on,
    remove_stale_socket,
)


@dataclass(frozen=True, slots=True)
class GatewaySocket:
    """A socket that a gateway inherits. ``is_shared``: whether other gateways accept from it, too."""

    descriptor: int
    address: Address
    is_shared: bool


@dataclass(slots=True)
class _Group:
    """The sockets of one address."""

    address: Address
    sockets: list[socket.socket] = field(default_factory=list)
    file: UnixSocketFile | None = None
    reuses_port: bool = False
    """Whether ``SO_REUSEPORT`` is still to be set on the first socket."""


class SharedListeners:
    """All listening sockets: ``open``, or ``adopt`` those of others, then ``listen``, then ``close``."""

    def __init__(self) -> None:
        self.shared = False
        """Whether another server listens on the same sockets: then ``close`` leaves the files to that."""
        self._groups: list[_Group] = []

    @property
    def addresses(self) -> list[Address]:
        """All addresses, with real ports."""
        return [group.address for group in self._groups]

    @property
    def descriptors(self) -> list[int]:
        """Those of all sockets."""
        return [sock.fileno() for group in self._groups for sock in group.sockets]

    async def open(self, address: Address, gateways: int) -> None:
        """Take an address, of which a host name may have several. Raises ``StartFailed``, with nothing taken.

        An operator's one is listened on at once: otherwise another program could still take it.
        """
        before = len(self._groups)
        try:
            await self._open(address, 1 if address.wire is Wire.OPS else gateways)
            if address.wire is Wire.OPS:
                self._listen(self._groups[before:])
        except StartFailed:
            self._close(self._groups[before:])
            del self._groups[before:]
            raise

    async def _open(self, address: Address, gateways: int) -> None:
        with listening_on(address):
            if address.path:
                path = Path(address.path)
                remove_stale_socket(path)
                sock = socket.socket(socket.AF_UNIX)
                self._groups.append(_Group(address, [sock]))
                sock.bind(address.path)
                self._groups[-1].file = UnixSocketFile.at(path)
                return
            found = await asyncio.get_running_loop().getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            for family, _, _, _, name in dict.fromkeys(found):
                self._open_tcp(socket.AddressFamily(family), name, address, gateways)

    def _open_tcp(
        self, family: socket.AddressFamily, name: tuple[Any, ...], address: Address, gateways: int
    ) -> None:
        group = _Group(address, reuses_port=gateways > 1)
        self._groups.append(group)
        for number in range(gateways):
            sock = socket.socket(family, socket.SOCK_STREAM)
            group.sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if number:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(name)
            name = sock.getsockname()  # with the port that the kernel has chosen, if any
        group.address = replace(address, host=name[0], port=name[1])

    def adopt(self, given: Sequence[OpenListener]) -> None:
        """Use sockets that another process has opened."""
        for one in given:
            for group in self._groups:
                if group.address == one.address and not one.address.path:
                    group.sockets.append(one.sock)
                    break
            else:
                self._groups.append(_Group(one.address, [one.sock], one.file()))

    def listen(self) -> None:
        """Let clients connect; they wait until a gateway accepts them. Raises ``StartFailed``."""
        self._listen(self._groups)

    def _listen(self, groups: Sequence[_Group]) -> None:
        for group in groups:
            with listening_on(group.address):
                group.sockets[0].listen(BACKLOG)
                if group.reuses_port:
                    group.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

    def of(self, gateways: int, gateway: int) -> list[GatewaySocket]:
        """Return the sockets that a gateway uses."""
        used = []
        for group in self._groups:
            if group.address.wire is Wire.OPS:
                if not gateway:
                    used += [GatewaySocket(sock.fileno(), group.address, False) for sock in group.sockets]
                continue
            of_others = [
                sock
                for other in range(gateways)
                if other != gateway
                for sock in items_of(group.sockets, gateways, other)
            ]
            used += [
                GatewaySocket(sock.fileno(), group.address, is_shared=sock in of_others)
                for sock in items_of(group.sockets, gateways, gateway)
            ]
        return used

    def offer(self) -> list[OfferedListener]:
        """Return all sockets, for a server that takes the place of this one."""
        return [
            OfferedListener(sock.fileno(), group.address, owned=group.file is not None)
            for group in self._groups
            for sock in group.sockets
        ]

    def close(self, *, but: Wire | None = None) -> None:
        """Close the supervisor's descriptors, and remove the files of unix sockets unless ``shared``.

        Those at which ``but`` is spoken stay.
        """
        kept = [group for group in self._groups if group.address.wire is but]
        self._close([group for group in self._groups if group not in kept])
        self._groups = kept

    def _close(self, groups: Sequence[_Group]) -> None:
        for group in groups:
            if group.file is not None and not self.shared:
                group.file.remove()
            for sock in group.sockets:
                sock.close()
