"""The connections on which nothing happens, in the order in which they may be closed to make place.

The account with the most idle connections comes first, and of those the one that has been idle for longest.
Every operation takes constant time: each account has its idle connections in the order in which they became
idle, and the accounts are in groups by the number of them.
"""

from typing import Generic, TypeVar

from vipsrv.server.accounts import Account

C = TypeVar("C")


class IdleConnections(Generic[C]):
    """Idle connections of any class, each with the account that it belongs to."""

    def __init__(self) -> None:
        self._of_account: dict[Account, dict[C, None]] = {}
        self._with_count: dict[int, dict[Account, None]] = {}
        self._most = 0

    def __len__(self) -> int:
        """The number of idle connections."""
        return sum(count * len(accounts) for count, accounts in self._with_count.items())

    def add(self, connection: C, account: Account) -> None:
        """Note that a connection is idle from now on, unless it was already."""
        idle = self._of_account.setdefault(account, {})
        if connection not in idle:
            self._move(account, len(idle), len(idle) + 1)
            idle[connection] = None

    def remove(self, connection: C, account: Account) -> None:
        """Note that a connection is not idle or closed; it need not have been idle."""
        idle = self._of_account.get(account)
        if idle is not None and connection in idle:
            self._move(account, len(idle), len(idle) - 1)
            del idle[connection]
            if not idle:
                del self._of_account[account]

    def first(self, account: Account | None = None) -> C | None:
        """Return the connection to be closed first, of ``account`` if that is given, or ``None``."""
        if account is None:
            account = next(iter(self._with_count.get(self._most, ())), None)
        idle = self._of_account.get(account, {}) if account is not None else {}
        return next(iter(idle), None)

    def _move(self, account: Account, before: int, after: int) -> None:
        if before:
            group = self._with_count[before]
            del group[account]
            if not group:
                del self._with_count[before]
        if after:
            self._with_count.setdefault(after, {})[account] = None
        # The numbers differ by 1, so if the largest group is empty now, the next one is just below it.
        if after > self._most or (before == self._most and before not in self._with_count):
            self._most = after
