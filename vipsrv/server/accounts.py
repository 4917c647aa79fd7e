"""Who uses the server: an account for each client address, and a flow for each of its connections.

The limits and fair shares of the server apply to an account, because a client can open any number of
connections. An account is known by the client's address; an IPv6 host usually has a whole /64 network, so
that network counts as one address. All clients of a unix socket share one account: the kernel names no
address for them.
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field

from vipsrv.storage.budget import Share

UNIX_SOCKET = "unix"
"""The account of all clients of unix sockets."""

_IPV6_PREFIX = 64


@dataclass(slots=True, eq=False)
class Account:
    """One client address, ``key`` (see ``account_key``), its open connections, and its share of the spool."""

    key: str
    flows: "set[Flow]" = field(default_factory=set)
    share: Share = field(default_factory=Share)


@dataclass(slots=True, eq=False)
class Flow:
    """One connection of an account: the requests that it sends one after another or at the same time."""

    account: Account


class Accounts:
    """The accounts that have an open connection."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}

    def __len__(self) -> int:
        """The number of accounts."""
        return len(self._accounts)

    def __iter__(self) -> Iterator[Account]:
        """All accounts; they may change meanwhile."""
        return iter(list(self._accounts.values()))

    def open_flow(self, key: str) -> Flow:
        """Return a new flow of the account ``key``, which is created if it has no other connection."""
        account = self._accounts.setdefault(key, Account(key))
        flow = Flow(account)
        account.flows.add(flow)
        return flow

    def close_flow(self, flow: Flow) -> None:
        """Forget a connection that is closed, and its account if it was the last one."""
        account = flow.account
        account.flows.discard(flow)
        if not account.flows:
            self._accounts.pop(account.key, None)


def account_key(peer: object) -> str:
    """Return the key of an account from the ``peername`` of a transport.

    That is a tuple with the numeric address first for TCP, and a text, often empty, for a unix socket.
    """
    address = address_of(peer)
    if address is None:
        return UNIX_SOCKET
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    return str(address)


def address_of(peer: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address in a ``peername``, or ``None`` for a unix socket."""
    if not isinstance(peer, tuple) or not peer:
        return None
    host = str(peer[0]).partition("%")[0]  # an IPv6 link-local address ends with its interface
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
