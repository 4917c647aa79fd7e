"""Penalties for failed logins of an address, in the manner of ``PerSourcePenalties`` of OpenSSH.

Each failed login adds seconds to the penalty of its address. Once more than a minimum has accumulated, the
address is refused until its penalty is over; each further failure prolongs it, up to a maximum. A single
mistake costs nothing. Values and rules are those of sshd (see sshd_config(5) and srclimit.c of OpenSSH 10):
5 s for each failure, refusal above 15 s, at most 10 minutes.

The tables are bounded, and IPv4 and IPv6 have one each, so that a flood from one does not overflow the other.
When one is full, the penalties that end soonest are dropped (``overflow:permissive``). The other mode of
sshd, to refuse everybody, would let an attacker with many addresses lock out all clients.
"""

from dataclasses import dataclass
from heapq import nsmallest

from vipsrv.server.accounts import UNIX_SOCKET

FAILURE_SECONDS = 5.0
"""Added by each failed login."""

LEAST_SECONDS = 15.0
"""An address is refused once more than these have accumulated: by the fourth failure in a row."""

MOST_SECONDS = 600.0
"""The longest penalty."""

MOST_ADDRESSES = 16_384
"""Addresses in each table; sshd has 65536, which are 15 MB here."""

_DROPPED_PART = 8
"""A full table drops the eighth of its penalties that ends soonest, so that few failures have to sort it."""


@dataclass(slots=True)
class _Penalty:
    ends: float
    is_enforced: bool = False


class Penalties:
    """The penalties of all addresses, by the key of their account (``accounts.account_key``).

    ``now`` is monotonic seconds. Clients of unix sockets have no penalty: they have no address by which the
    one who failed could be told from the others.
    """

    def __init__(
        self,
        *,
        failure: float = FAILURE_SECONDS,
        least: float = LEAST_SECONDS,
        most: float = MOST_SECONDS,
        addresses: int = MOST_ADDRESSES,
    ) -> None:
        self._failure = failure
        self._least = least
        self._most = most
        self._addresses = addresses
        self._ipv4: dict[str, _Penalty] = {}
        self._ipv6: dict[str, _Penalty] = {}

    def __len__(self) -> int:
        """The number of addresses with a penalty, enforced or not."""
        return len(self._ipv4) + len(self._ipv6)

    def failed(self, address_key: str, now: float) -> bool:
        """Count a failed login. Return whether the address is refused from now on and was not before."""
        if address_key == UNIX_SOCKET:
            return False
        table = self._table(address_key)
        penalty = table.get(address_key)
        if penalty is None or penalty.ends <= now:
            if penalty is None and len(table) >= self._addresses:
                self._make_room(table, now)
            penalty = table[address_key] = _Penalty(ends=now)
        penalty.ends = min(penalty.ends + self._failure, now + self._most)
        if penalty.is_enforced or penalty.ends - now <= self._least:
            return False
        penalty.is_enforced = True
        return True

    def until(self, address_key: str, now: float) -> float:
        """Return the time until which the address is refused; 0 if it is not."""
        if not (self._ipv4 or self._ipv6):
            return 0.0
        table = self._table(address_key)
        penalty = table.get(address_key)
        if penalty is None:
            return 0.0
        if penalty.ends <= now:
            del table[address_key]
            return 0.0
        return penalty.ends if penalty.is_enforced else 0.0

    def _table(self, address_key: str) -> dict[str, _Penalty]:
        return self._ipv6 if ":" in address_key else self._ipv4

    def _make_room(self, table: dict[str, _Penalty], now: float) -> None:
        for key in [key for key, penalty in table.items() if penalty.ends <= now]:
            del table[key]
        if len(table) >= self._addresses:
            surplus = max(1, self._addresses // _DROPPED_PART)
            for key in nsmallest(surplus, table, key=lambda key: table[key].ends):
                del table[key]
