"""When a call sends its image to a second server as well, because the first one takes longer than usual.

::

    times of the last calls ──► delay ──► a second attempt, at another server that is UP
                                            └─ takes a token of the retry budget, so that hedging stops
                                               when servers are slow because they have too much to do

Without input and output: the clients send both and cancel the one that is slower.
"""

import math
import threading
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from vipsrv.address import Address
from vipsrv.client.requests import ClientRequest
from vipsrv.client.retry import RetryBudget
from vipsrv.client.servers import Place, Servers
from vipsrv.client.sources import Source
from vipsrv.errors import VipsrvError
from vipsrv.protocol import Kind

REMEMBERED = 200
"""The calls whose times are known."""

LEAST_KNOWN = 20
"""Calls that have to have succeeded before one is hedged: fewer do not tell what is usual."""

EVERY = 10
"""Calls after which the usual time is found again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedge:
    """Send an image to a second server, too, if the first one takes longer than most calls do.

    That is after the time within which the ``share`` of the recent calls of the client were answered. The
    reply that comes first counts, and the other request is cancelled. Only images that are in memory and have
    at most ``most_bytes`` are sent twice, only if another server is well, and each takes a token of the retry
    budget (``Retry``).

    Raises ``ValueError`` for an impossible value.
    """

    share: float = 0.95
    most_bytes: int = 256 * 1024

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share: must be between 0 and 1, not {self.share!r}")
        if type(self.most_bytes) is not int or self.most_bytes < 1:
            raise ValueError(f"most_bytes: must be a whole number of bytes from 1, not {self.most_bytes!r}")


class HasServers(Protocol):
    """What knows several servers."""

    servers: Servers[Address]


class Hedging:
    """The hedging of one client. Several threads may use it."""

    def __init__(self, hedge: Hedge, known: HasServers, budget: RetryBudget) -> None:
        self._hedge = hedge
        self._servers = known.servers
        self._budget = budget
        self._lock = threading.Lock()
        self._times: deque[float] = deque(maxlen=REMEMBERED)
        self._noted = 0
        self._usual: float | None = None

    def fits(self, request: ClientRequest, source: Source) -> bool:
        """Whether a request may be sent twice."""
        small = source.in_memory and source.size <= self._hedge.most_bytes
        return small and request.kind is Kind.RESIZE and "upload" not in request.meta

    def delay(self) -> float | None:
        """Return the seconds after which to send it again, or ``None`` if that is not known, or too much."""
        return None if self._budget.spent else self._usual

    def note(self, seconds: float) -> None:
        """Note how long a call took that succeeded."""
        with self._lock:
            self._times.append(seconds)
            self._noted += 1
            if self._noted >= LEAST_KNOWN and self._noted % EVERY == 0:
                times = sorted(self._times)
                self._usual = times[min(len(times) - 1, math.floor(len(times) * self._hedge.share))]

    def second(self, first: object) -> Place[Address] | None:
        """Return the place of a second attempt and take a token; ``None`` if no other server is well."""
        known = [server for server in self._servers.all if server.endpoint == first]
        place = self._servers.other(known)
        if place is not None:
            self._budget.failed()
        return place

    def end(self, place: Place[Address], error: VipsrvError | None, *, cancelled: bool = False) -> None:
        """Note how the second attempt ended; one that was ``cancelled`` says nothing about its server."""
        self._servers.end(place, GeneratorExit() if cancelled else error)

    def forget(self) -> None:
        """In a forked child: take a new lock."""
        self._lock = threading.Lock()
