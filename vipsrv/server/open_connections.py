"""The registry of open connections, and the bounds on their number.

At most ``limit`` connections are served, and at most ``per_client`` of one client address. When one more
comes, an idle connection is closed for it (``idle_connections.py`` has the order): of the same address if
that is at its bound, and of any address otherwise. If none is idle, the new one is in excess: it is told
``busy`` and closed within some seconds. As many excess connections as served ones may be open, so a health
check is answered even while all places are taken.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

from vipsrv.server.accounts import UNIX_SOCKET, Account
from vipsrv.server.idle_connections import IdleConnections


class Connection(Protocol):
    """The interface of an open connection of any protocol."""

    def watch(self, now: float) -> None:
        """Check deadlines and timeouts; called several times a second with ``time.monotonic()``."""

    def drain(self) -> None:
        """Finish the requests that have begun, then close."""

    def give_way(self) -> bool:
        """Close, because the place is needed, if the connection is still idle; return whether it is."""

    def stop(self) -> None:
        """Answer waiting clients with ``Draining``, then close."""

    def abort(self) -> None:
        """Close at once, without sending unsent replies."""


class OpenConnections:
    """The open connections, each with the account of its client."""

    def __init__(self, limit: int, per_client: int) -> None:
        self.limit = limit
        self.per_client = per_client
        self._idle: IdleConnections[Connection] = IdleConnections()
        self._accounts: dict[Connection, Account] = {}
        self._turned_away: set[Connection] = set()
        self._served_of: Counter[Account] = Counter()
        self._turned_away_of: Counter[Account] = Counter()
        self._none_open = asyncio.Event()
        self._none_open.set()

    @property
    def served(self) -> int:
        """The number of connections, without excess ones."""
        return len(self._accounts) - len(self._turned_away)

    def __iter__(self) -> Iterator[Connection]:
        """All open connections; they may change meanwhile."""
        return iter(list(self._accounts))

    def add(self, connection: Connection, account: Account) -> bool:
        """Register a client that has connected; return whether there is a place for it.

        If there is none, the caller has to call ``turn_away``.
        """
        self._accounts[connection] = account
        self._served_of[account] += 1
        self._none_open.clear()
        # Clients of a unix socket cannot be told apart; whoever may open the socket's file is trusted.
        if account.key != UNIX_SOCKET and self._served_of[account] > self.per_client:
            return self._make_place(account)
        return self.served <= self.limit or self._make_place()

    def turn_away(self, connection: Connection) -> bool:
        """Stop counting a connection that is about to be closed; return whether it may be told why."""
        account = self._accounts[connection]
        self._idle.remove(connection, account)
        self._turned_away.add(connection)
        _decrease(self._served_of, account)
        self._turned_away_of[account] += 1
        few = self._turned_away_of[account] <= self.per_client or account.key == UNIX_SOCKET
        return few and len(self._turned_away) <= self.limit

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        account = self._accounts.pop(connection, None)
        if account is None:
            return
        self._idle.remove(connection, account)
        if connection in self._turned_away:
            self._turned_away.discard(connection)
            _decrease(self._turned_away_of, account)
        else:
            _decrease(self._served_of, account)
        if not self._accounts:
            self._none_open.set()

    def mark_idle(self, connection: Connection, account: Account, *, idle: bool) -> None:
        """Note whether nothing is in flight on a connection and no message has begun.

        A connection that was idle before and has been used since becomes the one that is idle for the
        shortest time.
        """
        self._idle.remove(connection, account)
        if idle:
            self._idle.add(connection, account)

    async def wait_until_closed(self, seconds: float) -> None:
        """Return when no connection is open, or after ``seconds``."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._none_open.wait(), seconds)

    def _make_place(self, account: Account | None = None) -> bool:
        """Close an idle connection, of ``account`` if that is given; return whether there was one."""
        while (noted := self._idle.first(account)) is not None:
            if noted.give_way():
                return True
            self._idle.remove(noted, self._accounts[noted])  # it has been used since it was noted
        return False


def _decrease(counter: Counter[Account], account: Account) -> None:
    counter[account] -= 1
    if not counter[account]:
        del counter[account]
