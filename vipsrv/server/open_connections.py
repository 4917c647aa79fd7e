"""The registry of open connections, and the bounds on their number.

At most ``limit`` connections are served. One client address may have at most ``per_client`` of them, and at
most ``GREED`` times as many as there are free places, but always one. So a few addresses cannot take all
places; ``storage/budget.py`` has the same rule for the spool.

When one more comes, an idle connection is closed for it (``idle_connections.py`` has the order): of the same
address if that is at its bound, or else of an address that has more connections; of any address if the
server is at its limit. If none is idle, the new one is in excess: it is told ``busy`` and closed within some
seconds. As many excess connections as there are places may be open, but at most ``MOST_TURNED_AWAY``, shared
by the same rule, so a health check is answered even while all places are taken.
"""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

from vipsrv.server.accounts import UNIX_SOCKET, Account
from vipsrv.server.idle_connections import IdleConnections
from vipsrv.storage.budget import GREED

MOST_TURNED_AWAY = 1024
"""The most excess connections that are told ``busy`` at the same time; any more are closed without a word."""

OPS_CONNECTIONS = 64
"""The most connections of operators, which are counted apart: a full server still answers them. Half of them
may watch the live page."""


class Connection(Protocol):
    """The interface of an open connection of any protocol."""

    watch_at: float
    """When ``watch`` is next needed, in seconds of ``time.monotonic``; 0 for as soon as possible."""

    def watch(self, now: float) -> None:
        """Check deadlines and timeouts, and set ``watch_at``."""

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
        self.opened = 0
        """How many clients have connected since the start."""
        self.told_busy = 0
        """How many had no place and were told so, since the start."""
        self.dropped = 0
        """How many had no place and were closed without a word."""
        self.displaced = 0
        """How many idle ones were closed because their place was needed."""
        self._idle: IdleConnections[Connection] = IdleConnections()
        self._accounts: dict[Connection, Account] = {}
        self._turned_away: set[Connection] = set()
        self._served_of: dict[Account, int] = {}
        self._turned_away_of: dict[Account, int] = {}
        self._none_open = asyncio.Event()
        self._none_open.set()

    def change_limits(self, limit: int, per_client: int) -> None:
        """Use other limits from now on. Connections that are open stay, even if they are more."""
        self.limit = limit
        self.per_client = per_client

    @property
    def served(self) -> int:
        """The number of connections, without excess ones."""
        return len(self._accounts) - len(self._turned_away)

    @property
    def excess(self) -> int:
        """The number of excess connections."""
        return len(self._turned_away)

    @property
    def idle(self) -> int:
        """The number of served connections that may be closed for another one."""
        return len(self._idle)

    def __iter__(self) -> Iterator[Connection]:
        """All open connections; they may change meanwhile."""
        return iter(list(self._accounts))

    def due(self, now: float) -> list[Connection]:
        """Return the connections that have something to check at ``now``: of many idle ones, hardly any."""
        return [connection for connection in self._accounts if connection.watch_at <= now]

    def add(self, connection: Connection, account: Account) -> bool:
        """Register a client that has connected; return whether there is a place for it.

        If there is none, the caller has to call ``turn_away``.
        """
        self._accounts[connection] = account
        self._served_of[account] = own = self._served_of.get(account, 0) + 1
        self._none_open.clear()
        if not self._is_bounded(account):
            return self.served <= self.limit or self._make_place()
        if own > self.per_client:
            return self._make_place(account)
        if own > _share_of(self.limit - self.served):
            return self._make_place(account) or self._make_place(more_than=own)
        return self.served <= self.limit or self._make_place()

    def turn_away(self, connection: Connection) -> bool:
        """Stop counting a connection that is about to be closed; return whether it may be told why."""
        account = self._accounts[connection]
        self._idle.remove(connection, account)
        self._turned_away.add(connection)
        _decrease(self._served_of, account)
        self._turned_away_of[account] = turned_away = self._turned_away_of.get(account, 0) + 1
        left = min(self.limit, MOST_TURNED_AWAY) - len(self._turned_away)
        bound = min(self.per_client, _share_of(left))
        return left >= 0 and (turned_away <= bound or not self._is_bounded(account))

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

    def _is_bounded(self, account: Account) -> bool:
        # Clients of a unix socket cannot be told apart; whoever may open the socket's file is trusted.
        return account.key != UNIX_SOCKET

    def _make_place(self, account: Account | None = None, *, more_than: int = 0) -> bool:
        """Close an idle connection; return whether there was one.

        It is one of ``account`` if that is given, and of an account with ``more_than`` so many connections.
        """
        while (noted := self._idle.first(account)) is not None:
            owner = self._accounts[noted]
            if self._served_of[owner] <= more_than:
                return False
            if noted.give_way():
                self.displaced += 1
                return True
            self._idle.remove(noted, owner)  # it has been used since it was noted
        return False


def _share_of(left: int) -> int:
    """The connections that one account may have while ``left`` places are free."""
    return max(1, GREED * left)


def _decrease(counts: dict[Account, int], account: Account) -> None:
    counts[account] -= 1
    if not counts[account]:
        del counts[account]
