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
from heapq import heappop, heappush, heapreplace

from vipsrv.server.accounts import UNIX_SOCKET

FAILURE_SECONDS = 5.0
"""Added by each failed login."""

LEAST_SECONDS = 15.0
"""An address is refused once more than these have accumulated: by the fourth failure in a row."""

MOST_SECONDS = 600.0
"""The longest penalty."""

MOST_ADDRESSES = 16_384
"""Addresses in each table, about 4 MB; sshd has 65536."""

_STEPS = 64
"""Entries of the heap that one failure corrects at most, so that a flood never makes it take long."""


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
        self._ipv4 = _Table(addresses)
        self._ipv6 = _Table(addresses)

    def __len__(self) -> int:
        """The number of addresses that are remembered."""
        return len(self._ipv4.penalties) + len(self._ipv6.penalties)

    def failed(self, address_key: str, now: float) -> bool:
        """Count a failed login. Return whether the address is refused from now on and was not before."""
        if address_key == UNIX_SOCKET:
            return False
        table = self._table(address_key)
        penalty = table.penalties.get(address_key)
        if penalty is None:
            penalty = table.add(address_key, now, now + self._failure)
        else:
            if penalty.ends <= now:
                penalty.ends = now
                penalty.is_enforced = False
            penalty.ends = min(penalty.ends + self._failure, now + self._most)
        if penalty.is_enforced or penalty.ends - now <= self._least:
            return False
        penalty.is_enforced = True
        return True

    def until(self, address_key: str, now: float) -> float:
        """Return the time until which the address is refused; 0 if it is not."""
        penalty = self._table(address_key).penalties.get(address_key)
        if penalty is None or not penalty.is_enforced or penalty.ends <= now:
            return 0.0
        return penalty.ends

    def _table(self, address_key: str) -> "_Table":
        return self._ipv6 if ":" in address_key else self._ipv4


class _Table:
    """At most ``size`` penalties, and a heap that finds the one which ends first.

    Each penalty has one entry in the heap. A penalty that is prolonged keeps its entry, which is corrected
    when it comes to the top.
    """

    __slots__ = ("_heap", "_size", "penalties")

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[float, str]] = []
        self.penalties: dict[str, _Penalty] = {}

    def add(self, key: str, now: float, ends: float) -> _Penalty:
        """Add a penalty, and drop some that are over, or else the one that ends first if there is no room."""
        self._drop(now)
        penalty = self.penalties[key] = _Penalty(ends)
        heappush(self._heap, (ends, key))
        return penalty

    def _drop(self, now: float) -> None:
        heap, penalties = self._heap, self.penalties
        for _ in range(_STEPS):
            if not heap:
                return
            ends, key = heap[0]
            if penalties[key].ends > ends:
                heapreplace(heap, (penalties[key].ends, key))
            elif ends <= now or len(heap) >= self._size:
                heappop(heap)
                del penalties[key]
            else:
                return
        if len(heap) >= self._size:
            # All that were corrected end later than they said; one of them has to go.
            del penalties[heappop(heap)[1]]
