"""A list of client addresses in a setting: networks, single addresses, and ``unix``."""

import ipaddress
from collections.abc import Iterable

from vipsrv.server.accounts import UNIX_SOCKET, address_of


class AddressList:
    """The networks and addresses that ``words`` name; ``unix`` stands for all clients of unix sockets."""

    def __init__(self, words: Iterable[str]) -> None:
        words = list(words)
        self._unix = UNIX_SOCKET in words
        self._networks = [ipaddress.ip_network(word, strict=False) for word in words if word != UNIX_SOCKET]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self._unix or bool(self._networks)

    def __contains__(self, peer: object) -> bool:
        """Whether the client with this ``peername`` has one of these addresses."""
        if peer is None:  # it is not known who that is
            return False
        address = address_of(peer)
        if address is None:
            return self._unix
        return any(address in network for network in self._networks)
