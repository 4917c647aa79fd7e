"""Who uses the server: an account for each client address, and a flow for each of its connections.

The limits and fair shares of the server apply to an account, because a client can open any number of
connections. An account is known by the client's address; an IPv6 host usually has a whole /64 network, so
that network counts as one address. All clients of a unix socket share one account: the kernel names no
address for them.
"""

import ipaddress
from dataclasses import dataclass, field
from functools import lru_cache

from vipsrv.storage.budget import Share

UNIX_SOCKET = "unix"
"""The account of all clients of unix sockets."""

IDENTITY = "identity:"
"""How the keys of identities begin; no address and no ``unix`` looks like it."""

_IPV6_PREFIX = 64
_CACHED_HOSTS = 4096  # parsing an address takes longer than all else that a new connection needs


@dataclass(slots=True, eq=False)
class Account:
    """One client: ``key`` is its address (see ``account_key``) or its identity (see ``identity_key``).

    It has open connections, a share of the spool, and a ``weight`` in the fair queue.
    """

    key: str
    weight: float = 1.0
    flows: "set[Flow]" = field(default_factory=set)
    share: Share = field(default_factory=Share)

    @property
    def owner(self) -> str:
        """Whose uploads its clients may go on with: the key of an identity, empty for all without one."""
        return self.key if self.key.startswith(IDENTITY) else ""

    @property
    def is_unused(self) -> bool:
        """Whether it has no connection and holds nothing of the spool."""
        share = self.share
        return not (self.flows or share.memory.size or share.disk.size or share.uploads)


@dataclass(slots=True, eq=False)
class Flow:
    """One connection of an account: the requests that it sends one after another or at the same time."""

    account: Account


class Accounts:
    """The accounts that have an open connection or still hold a part of the spool.

    A client that reconnects while its files are being freed thus cannot have a second share.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._without_flow: dict[Account, None] = {}

    def __len__(self) -> int:
        """The number of accounts."""
        return len(self._accounts)

    def open_flow(self, key: str) -> Flow:
        """Return a new flow of the account ``key``, which is created if it has no other connection."""
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(key)
        self._without_flow.pop(account, None)
        flow = Flow(account)
        account.flows.add(flow)
        return flow

    def close_flow(self, flow: Flow) -> None:
        """Forget a connection that is closed, and its account if that is unused now."""
        account = flow.account
        account.flows.discard(flow)
        if account.is_unused:
            self._forget(account)
        elif not account.flows:
            self._without_flow[account] = None

    def forget_unused(self) -> None:
        """Forget the accounts whose files have been freed; call this regularly."""
        for account in list(self._without_flow):
            if account.is_unused:
                self._forget(account)

    def _forget(self, account: Account) -> None:
        self._without_flow.pop(account, None)
        if self._accounts.get(account.key) is account:
            del self._accounts[account.key]


def account_key(peer: object) -> str:
    """Return the key of an account from the ``peername`` of a transport.

    That is a tuple with the numeric address first for TCP, and a text, often empty, for a unix socket.
    """
    return _key_of_host(peer[0]) if isinstance(peer, tuple) and peer else UNIX_SOCKET


@lru_cache(_CACHED_HOSTS)
def _key_of_host(host: str) -> str:
    address = _parse(host)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    return str(address)


def address_of(peer: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address in a ``peername``, or ``None`` for a unix socket."""
    return _parse(peer[0]) if isinstance(peer, tuple) and peer else None


def _parse(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    # An IPv6 link-local address ends with its interface.
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
