"""What an identity uses at the moment, held against its limits.

Rates are limited by the generic cell rate algorithm (GCRA) in its form of virtual scheduling: ITU-T
Recommendation I.371 (03/2004), annex A, and ATM Forum Traffic Management Specification 4.1, section 4.4.2.
For each rate it keeps one number, the theoretical arrival time (TAT) of the next cell. A cell that arrives at
t conforms if t ≥ TAT - τ; TAT then becomes max(t, TAT) + T. Here a cell is a request, or a byte of an upload;
T is 1/rate, and n bytes are n cells that arrive together. The tolerance τ is chosen so that a burst of
``BURST_SECONDS`` times the rate, but at least one request, conforms after a pause.

If a server has several gateways, the numbers are in memory that the gateways share (``shared_quotas``).
"""

import math
from typing import Protocol

from vipsrv.errors import Busy, Limit
from vipsrv.server.identity.identity import Identity
from vipsrv.server.identity.shared_quotas import SharedRecord

BURST_SECONDS = 1.0
"""The requests or bytes of this time may come at once after a pause."""

_ROUNDING = 1e-6
"""Seconds that the rounding of floats may add to a sum of many intervals; a wait this short is none."""

_LEAST_RETRY_MS = 100
"""When to try again if all requests in flight have to wait for one to end."""

_LARGE = 1000.0
"""From here on a rate is shown in whole units, with commas."""


class _State(Protocol):
    """Two numbers of a rate, in this process or in memory that several processes share."""

    def __getitem__(self, index: int, /) -> float: ...
    def __setitem__(self, index: int, value: float, /) -> None: ...


class Gcra:
    """A limit of ``rate`` units a second, with at most ``burst`` units at once.

    In any time of t seconds it admits at most ``rate`` · t + ``burst`` units. More than ``burst`` at once (an
    upload larger than a burst) is admitted where a whole burst would be; what follows waits for it. The bound
    then has that size in the place of ``burst``.

    ``shared`` are two numbers that other processes use for the same limit: the TAT and the interval T that it
    was made with, both 0 at first.
    """

    __slots__ = ("_interval", "_state", "_tolerance", "rate")

    def __init__(self, rate: float, burst: float, shared: _State | None = None, now: float = 0.0) -> None:
        self._state: _State = [-math.inf, 0.0] if shared is None else shared
        self.set_rate(rate, burst, now)

    def wait(self, units: float, now: float) -> float:
        """Return the seconds after which ``units`` are admitted; 0 is at once."""
        time = min(units * self._interval, self._tolerance)
        seconds = self._state[0] + time - self._tolerance - now
        return seconds if seconds > _ROUNDING else 0.0

    def take(self, units: float, now: float) -> None:
        """Count units that are admitted."""
        state = self._state
        state[0] = max(now, state[0]) + units * self._interval

    def set_rate(self, rate: float, burst: float, now: float) -> None:
        """Change the limit. What was taken beforehand still counts, at the new rate."""
        self.rate = rate
        self._interval = 1 / rate
        self._tolerance = burst / rate
        arrival, interval = self._state[0], self._state[1]
        # Of several processes the first one converts what is owed; for the others it is the new rate already.
        if interval not in (0.0, self._interval):
            self._state[0] = now + max(0.0, arrival - now) / interval * self._interval
        self._state[1] = self._interval


class Usage:
    """What all connections of one identity use together, held against its limits.

    It outlives the connections, so that a client gains nothing by connecting again. ``in_flight`` is what
    this process counts; with ``shared`` the limits hold for all processes that use the same record.
    """

    __slots__ = ("_bytes", "_identity", "_requests", "_shared", "in_flight")

    def __init__(self, identity: Identity, shared: SharedRecord | None = None, now: float = 0.0) -> None:
        self._identity = identity
        self._shared = shared
        self.in_flight = 0
        self._requests: Gcra | None = None
        self._bytes: Gcra | None = None
        self.renew(identity, now)

    @property
    def identity(self) -> Identity:
        """Whose usage it is."""
        return self._identity

    def admit(self, size: int, now: float) -> None:
        """Count a request with an upload of ``size`` bytes; ``done`` ends it.

        ``now`` is monotonic seconds. Raises ``Busy``, and counts nothing, if a limit would be exceeded.
        """
        most, shared = self._identity.limits.in_flight, self._shared
        if most is not None:
            in_flight = self.in_flight if shared is None else shared.in_flight
            if in_flight >= most:
                raise self._busy(
                    f"has {in_flight} requests in flight, as many as it may have", 0.0, Limit.TOKEN_IN_FLIGHT
                )
        requests, sizes = self._requests, self._bytes
        if requests is not None and (seconds := requests.wait(1, now)):
            raise self._busy(
                f"sends more than {_shown(requests.rate)} requests a second", seconds, Limit.TOKEN_REQUESTS
            )
        if sizes is not None:
            if seconds := sizes.wait(size, now):
                raise self._busy(
                    f"sends more than {_shown(sizes.rate)} bytes a second", seconds, Limit.TOKEN_BYTES
                )
            sizes.take(size, now)
        if requests is not None:
            requests.take(1, now)
        self.in_flight += 1
        if shared is not None:
            shared.add_in_flight(1)

    def count(self, size: int, now: float) -> None:
        """Count bytes of an upload that was admitted without them; the limit then holds for the next one."""
        if self._bytes is not None:
            self._bytes.take(size, now)

    def give_back(self, size: int, now: float) -> None:
        """Stop counting bytes of an upload that was admitted with them: they have not arrived."""
        if self._bytes is not None:
            self._bytes.take(-size, now)

    def done(self) -> None:
        """End a request that was admitted."""
        self.in_flight -= 1
        if self._shared is not None:
            self._shared.add_in_flight(-1)

    def renew(self, identity: Identity, now: float) -> None:
        """Apply the limits of the same identity after a reload; what it has used still counts."""
        self._identity = identity
        shared, limits = self._shared, identity.limits
        requests, sizes = (None, None) if shared is None else (shared.requests, shared.bytes)
        self._requests = _changed(self._requests, limits.requests_per_second, requests, now)
        self._bytes = _changed(self._bytes, limits.bytes_per_second, sizes, now)

    def _busy(self, what: str, seconds: float, limit: Limit) -> Busy:
        # Rounded up, so that a request at that time is admitted.
        wait = max(_LEAST_RETRY_MS, math.floor(seconds * 1000) + 1)
        return Busy(f"{self._identity.name} {what}; try again later", retry_after_ms=wait, limit=limit)


def _shown(rate: float) -> str:
    return f"{rate:.6g}" if rate < _LARGE else f"{rate:,.0f}"


def _burst(rate: float) -> float:
    return max(1.0, rate * BURST_SECONDS)


def _changed(limit: Gcra | None, rate: float | None, shared: _State | None, now: float) -> Gcra | None:
    if rate is None:
        return None
    if limit is None:
        return Gcra(rate, _burst(rate), shared, now)
    limit.set_rate(rate, _burst(rate), now)
    return limit
