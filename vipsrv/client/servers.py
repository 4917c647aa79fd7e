"""Decides which server a call is sent to, and which ones are left alone for a while.

::

                        a loss of the connection is no failure; the second one in a row is
          ┌─────────────────────── failed ───────────────────────┐
          │                                                      ▼
          UP ◄── answered ── PROBING ◄── its time is over ── LEFT_OUT
          ▲                     │                              ▲ │
          │                     └──── no answer, longer now ───┘ │
          └── a call was sent there, as nothing else was left, ──┘
              and was answered

Among the servers that are UP it takes two at random and of these the one with fewer requests in flight: that
keeps slow servers from being flooded, without knowing how fast they are.

Without input and output: the clients connect, send and probe. May be used by several threads.
"""

import random
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, NamedTuple, TypeVar

from vipsrv.errors import ConnectionLost, Draining, RequestError, VipsrvError

Endpoint = TypeVar("Endpoint", bound=Hashable)

FIRST_LEAVE = 0.25
"""Seconds for which a server is left out after the first failure; they double with each further one."""

LONGEST_LEAVE = 10.0
"""Seconds: no server is left out for longer before it is probed again."""

SPREAD = 0.25
"""The most that is added to such a time, as a part of it: clients do not probe all at once."""

MOST_LOSSES = 1
"""Connections that a server may lose one after another, without a reply in between, before it is left out."""


class ServerState(Enum):
    """What the client does with a server."""

    UP = auto()
    """Calls are sent to it."""
    LEFT_OUT = auto()
    """It has failed: calls go elsewhere until it is probed."""
    PROBING = auto()
    """It was left out, and a PING asks whether it is back."""


_MOVES = {
    ServerState.UP: {ServerState.LEFT_OUT},
    ServerState.LEFT_OUT: {ServerState.PROBING, ServerState.UP},
    ServerState.PROBING: {ServerState.LEFT_OUT, ServerState.UP},
}


@dataclass(slots=True, eq=False)
class Server(Generic[Endpoint]):
    """One server: where it is, and what is known about it.

    ``failures`` counts how often it was left out since a call was last answered; ``until`` is when it is to
    be probed, by the clock; ``reason`` is the last failure. ``events`` counts failures and losses, so that
    the calls that end together by one event count as one.
    """

    endpoint: Endpoint
    state: ServerState = ServerState.UP
    in_flight: int = 0
    failures: int = 0
    losses: int = 0
    events: int = 0
    until: float = 0.0
    reason: VipsrvError | None = field(default=None, repr=False)

    def move_to(self, state: ServerState) -> None:
        """Change the state. Raises ``RuntimeError`` for a change that is not in the table."""
        if state not in _MOVES[self.state]:
            raise RuntimeError(f"a server does not go from {self.state.name} to {state.name}")
        self.state = state


class Place(NamedTuple, Generic[Endpoint]):
    """One attempt at a server; it is given back with ``Servers.end``."""

    server: Server[Endpoint]
    event: int
    """The events of the server when the attempt began."""


class Servers(Generic[Endpoint]):
    """The servers of one client. ``clock`` and ``chance`` (0 to 1) are for tests."""

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._clock, self._chance = clock, chance
        self._lock = threading.Lock()
        self._all: tuple[Server[Endpoint], ...] = tuple(Server(one) for one in dict.fromkeys(endpoints))
        self._up = self._all  # those that are UP
        self._next_probe: float | None = None  # when the first of those that are left out is due

    @property
    def all(self) -> tuple[Server[Endpoint], ...]:
        """The servers, in the order in which they were given."""
        return self._all

    def choose(self, avoid: Collection[Server[Endpoint]] = (), preferred: object = None) -> Place[Endpoint]:
        """Choose the server of an attempt; none of those to ``avoid`` if there is another one that is UP.

        It is the one with the ``preferred`` endpoint if that one is UP. If all are left out, it is the one
        that is to be probed first: it has failed least or longest ago. Raises ``LookupError`` if there are no
        servers at all.
        """
        with self._lock:
            server = self._all[0] if len(self._all) == 1 else self._best(avoid, preferred)
            server.in_flight += 1
            return Place(server, server.events)

    def other(self, avoid: Collection[Server[Endpoint]]) -> Place[Endpoint] | None:
        """Choose a server that is UP and not to be avoided, for a second attempt; ``None`` without one."""
        with self._lock:
            others = [one for one in self._up if one not in avoid]
            if not others:
                return None
            server = self._less_busy(others)
            server.in_flight += 1
            return Place(server, server.events)

    def has_other(self, avoid: Collection[Server[Endpoint]]) -> bool:
        """Whether a server is UP that is not to be avoided."""
        return any(one not in avoid for one in self._up)

    def forget(self) -> None:
        """In a forked child: take a new lock, since a thread of the parent may have held the old one.

        The calls in flight are the parent's.
        """
        self._lock = threading.Lock()
        for server in self._all:
            server.in_flight = 0

    def end(self, place: Place[Endpoint], error: BaseException | None = None) -> None:
        """Note how an attempt ended: with a reply, or with this error.

        An error that does not come from the server, such as that of the image's file, says nothing about it.
        """
        server = place.server
        with self._lock:
            server.in_flight -= 1
            if error is None or (isinstance(error, RequestError) and not isinstance(error, Draining)):
                if server.failures or server.losses:
                    self._answered(server)
            elif isinstance(error, VipsrvError) and place.event == server.events:
                server.events += 1
                server.reason = error
                if type(error) is ConnectionLost:
                    server.losses += 1
                    if server.losses <= MOST_LOSSES:
                        return
                self._leave_out(server)

    def due(self) -> list[Server[Endpoint]]:
        """Return the servers that have to be probed now, once each: ``probed`` must follow."""
        if self._next_probe is None or self._clock() < self._next_probe:
            return []
        now = self._clock()
        with self._lock:
            due = [one for one in self._all if one.state is ServerState.LEFT_OUT and one.until <= now]
            for server in due:
                server.move_to(ServerState.PROBING)
            self._plan()
            return due

    def probed(self, server: Server[Endpoint], error: BaseException | None = None) -> None:
        """Note the answer of a server that was ``due``, or why there was none.

        It is trusted with calls again, but its failures are forgotten only when it has answered one.
        """
        with self._lock:
            if server.state is not ServerState.PROBING:
                return  # a call was answered meanwhile
            server.events += 1
            if error is None or (isinstance(error, RequestError) and not isinstance(error, Draining)):
                server.move_to(ServerState.UP)
                self._plan()
                return
            if isinstance(error, VipsrvError):
                server.reason = error
            self._leave_out(server)

    def replace(self, endpoints: Iterable[Endpoint]) -> list[Server[Endpoint]]:
        """Go on with these endpoints, and with what is known of those that stay; return those that are gone.

        Attempts at the ones that are gone may still be in flight.
        """
        with self._lock:
            known = {server.endpoint: server for server in self._all}
            wanted = dict.fromkeys(endpoints)
            self._all = tuple(known[one] if one in known else Server(one) for one in wanted)
            self._plan()
            return [server for one, server in known.items() if one not in wanted]

    def _best(self, avoid: Collection[Server[Endpoint]], preferred: object) -> Server[Endpoint]:
        up = self._up
        if preferred is not None:
            for server in up:
                if server.endpoint == preferred:
                    return server
        if avoid:
            # The one that has just failed, perhaps because it is busy, is still better than one left out.
            up = tuple(one for one in up if one not in avoid) or up
        if up:
            return self._less_busy(up)
        left = [one for one in self._all if one not in avoid] or self._all
        if not left:
            raise LookupError("there is no server")
        return min(left, key=lambda one: (one.until, one.in_flight))

    def _less_busy(self, servers: Sequence[Server[Endpoint]]) -> Server[Endpoint]:
        number = len(servers)
        if number == 1:
            return servers[0]
        first = int(self._chance() * number)
        second = int(self._chance() * (number - 1))
        second += second >= first
        one, other = servers[first], servers[second]
        return other if other.in_flight < one.in_flight else one

    def _answered(self, server: Server[Endpoint]) -> None:
        server.failures = server.losses = 0
        server.reason = None
        if server.state is not ServerState.UP:
            server.move_to(ServerState.UP)
            self._plan()

    def _leave_out(self, server: Server[Endpoint]) -> None:
        if server.state is not ServerState.LEFT_OUT:
            server.move_to(ServerState.LEFT_OUT)
        seconds = min(LONGEST_LEAVE, FIRST_LEAVE * 2**server.failures)
        server.failures = min(server.failures + 1, 32)
        server.until = self._clock() + seconds * (1 + SPREAD * self._chance())
        self._plan()

    def _plan(self) -> None:
        """Note which servers are UP and when the next one is due, after a change of the states."""
        self._up = tuple(one for one in self._all if one.state is ServerState.UP)
        left_out = [one.until for one in self._all if one.state is ServerState.LEFT_OUT]
        self._next_probe = min(left_out) if len(self._all) > 1 and left_out else None
