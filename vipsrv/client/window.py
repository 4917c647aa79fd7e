"""Decides how many requests a client has in flight: it keeps the server busy and does not fill its queue.

::

    place(size) ──► request ──► reply ──── succeeded() ──► after as many successes as places: perhaps one more
         ▲                        │
         │                        └─────── busy(error) ──► half the places, and none is given for a while
         └── waits for its turn, for a place, and for room for its bytes

The first size of the window follows from the server's limits (``ServerLimits``): one request for each worker,
and as many and one more that wait, so that a worker finds the next one when it ends a job. Where the way to
the server takes longer than a job, that is too few: while requests find idle workers, the window grows. No
more ever wait than half of what the server lets one client have. One gateway serves a connection: ``workers``
are those of it. The figures are those of decision 44.

The client of the requests is to have ``retry=Retry.none()``: otherwise it sends a refused request again by
itself, and the window does not learn of it.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from vipsrv.client.results import ServerLimits
from vipsrv.errors import Busy, RequestError
from vipsrv.options import Timings

T = TypeVar("T")

MOST_ON_A_CONNECTION = 32
"""Requests that a server reads from one connection before it has answered any of them."""

CAREFUL_START = 4
"""Requests in flight at a server that does not say how many workers it has."""

CAREFUL_MOST = 16
"""The most that this number grows to."""

NO_WAIT = 0.1
"""A request found an idle worker if it waited for less than this part of the time that its job took."""

MOST_IDLE, LEAST_IDLE = 0.25, 0.1
"""The parts of the requests that find an idle worker above which the window grows, and below which it
shrinks, as long as it is larger than at first.
"""

DEFAULT_MOST_BYTES = 64 * 2**20
"""Bytes of images that are in flight together, if the caller does not say otherwise."""

DEFAULT_PATIENCE = 60.0
"""Seconds for which ``ask`` sends a refused request again while the server answers no other one either."""

FIRST_PAUSE = 0.1
"""Seconds after the first ``Busy`` that does not say how long to wait; they double with each further one."""

LONGEST_PAUSE = 5.0
"""Seconds: no pause that the client chooses itself is longer."""

SPREAD = 0.25
"""The most that is added to a pause, as a part of it: clients that were refused together return apart."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A request that waits for a place; ``turn`` is done when it has one."""

    size: int
    turn: asyncio.Future[None]


class Window:
    """The places for requests in flight at one server, for the tasks of one event loop.

    ``limits`` are those of the server's HELLO; each of several ``servers`` has as many places. The images
    in flight have at most ``most_bytes`` together; a larger one is in flight alone. Requests get places in
    the order in which they ask. ``clock``, ``sleep`` and ``chance`` (0 to 1) are for tests.
    """

    def __init__(
        self,
        limits: ServerLimits,
        *,
        servers: int = 1,
        most_bytes: int = DEFAULT_MOST_BYTES,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._size, self._most = (servers * places for places in _places(limits))
        self._usual = self._size
        self._most_bytes = max(1, most_bytes)
        self._clock, self._sleep, self._chance = clock, sleep, chance
        self._waiting: deque[_Waiting] = deque()
        self._in_flight = 0
        self._bytes = 0
        self._successes = 0  # since the size was last decided on
        self._without_wait = 0  # of these, how many found an idle worker
        self._refusals = 0  # in a row
        self._last_success = clock()
        self._closed_until = 0.0  # by the clock: no places are given before
        self._pausing = 0  # calls of ``busy`` that wait

    @property
    def size(self) -> int:
        """How many requests may be in flight now."""
        return self._size

    @property
    def most(self) -> int:
        """How many may ever be in flight."""
        return self._most

    @property
    def in_flight(self) -> int:
        """How many are in flight."""
        return self._in_flight

    @property
    def bytes_in_flight(self) -> int:
        """The bytes of their images; of one that is larger than the bound only the bound is counted."""
        return self._bytes

    @asynccontextmanager
    async def place(self, size: int) -> AsyncIterator[None]:
        """Wait for a place for a request with an image of ``size`` bytes, and hold it within the block.

        Leave the block before you wait in ``busy``: a refused request is not in flight.
        """
        counted = await self._take(size)
        try:
            yield
        finally:
            self._release(counted)

    async def _take(self, size: int) -> int:
        """Wait for a place, and return what is to be released."""
        counted = min(size, self._most_bytes)
        if not self._waiting and self._open and self._fits(counted):
            self._in_flight += 1
            self._bytes += counted
            return counted
        waiting = _Waiting(counted, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._give_places()
        try:
            await waiting.turn
        except asyncio.CancelledError:
            if waiting.turn.cancelled():
                self._give_places()  # it is skipped, and a smaller image may be the next one
            else:
                self._release(counted)  # it got its place in the same moment
            raise
        return counted

    def succeeded(self, timings: Timings | None = None) -> None:
        """Count a request that the server has accepted and answered, with an error about its image, too.

        With the ``timings`` of the results the window may grow beyond its first size.
        """
        self._refusals = 0
        self._last_success = self._clock()
        self._successes += 1
        if timings is not None and timings.queue < NO_WAIT * timings.process:
            self._without_wait += 1
        if self._successes >= self._size:
            idle = self._without_wait / self._successes
            self._successes = self._without_wait = 0
            if self._size < self._usual or (idle > MOST_IDLE and self._size < self._most):
                self._size += 1
                self._give_places()
            elif idle < LEAST_IDLE and self._size > self._usual:
                self._size -= 1

    async def busy(self, error: Busy) -> None:
        """Halve the window, and wait as long as the server says, or longer each time if it does not say.

        No places are given meanwhile. Requests that are refused during this pause belong to the same
        congestion and halve nothing.
        """
        now = self._clock()
        if now >= self._closed_until:
            self._size = max(1, self._size // 2)
            self._successes = self._without_wait = 0
            self._refusals += 1
        self._closed_until = max(self._closed_until, now + self._pause(error))
        self._pausing += 1
        try:
            while (left := self._closed_until - self._clock()) > 0:
                await self._sleep(left)
        finally:
            self._pausing -= 1
            if not self._pausing:
                self._closed_until = min(self._closed_until, self._clock())
            self._give_places()

    async def ask(
        self, size: int, request: Callable[[], Awaitable[T]], *, patience: float = DEFAULT_PATIENCE
    ) -> T:
        """Make a request with an image of ``size`` bytes in a place, again after each ``Busy``.

        Raises what ``request`` raises; ``Busy`` only if the server has answered nothing for ``patience``
        seconds and refused this request for as long.
        """
        refused_since: float | None = None
        while True:
            counted = await self._take(size)
            try:
                answer = await request()
            except Busy as error:
                now = self._clock()
                refused_since = now if refused_since is None else refused_since
                if now - max(refused_since, self._last_success) >= patience:
                    raise
                refusal = error
            except RequestError as error:
                if not error.retryable:
                    self.succeeded()  # the server is not busy: it has worked on the image
                raise
            else:
                timings = getattr(answer, "timings", None)
                self.succeeded(timings if isinstance(timings, Timings) else None)
                return answer
            finally:
                self._release(counted)
            await self.busy(refusal)
            refusal.forget_frames()

    def _pause(self, error: Busy) -> float:
        if error.retry_after_ms is not None:
            seconds = error.retry_after_ms / 1000
        else:
            seconds = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(max(0, self._refusals - 1), 16))
        return seconds * (1 + SPREAD * self._chance())

    def _give_places(self) -> None:
        """Give places to the requests that have waited longest, as far as there are places."""
        while self._waiting and self._open:
            first = self._waiting[0]
            given_up = first.turn.cancelled()
            if not given_up and not self._fits(first.size):
                return
            self._waiting.popleft()
            if not given_up:
                self._in_flight += 1
                self._bytes += first.size
                first.turn.set_result(None)

    @property
    def _open(self) -> bool:
        """Whether there are places now."""
        return self._in_flight < self._size and self._clock() >= self._closed_until

    def _fits(self, size: int) -> bool:
        """Whether there is room for the bytes of an image."""
        return not self._in_flight or self._bytes + size <= self._most_bytes

    def _release(self, size: int) -> None:
        self._in_flight -= 1
        self._bytes -= size
        self._give_places()


def _places(limits: ServerLimits) -> tuple[int, int]:
    """Return how many requests may be in flight at first, and how many ever."""
    workers, queue = limits.workers, limits.queue_per_client
    if workers is None:
        return CAREFUL_START, CAREFUL_MOST
    running = max(1, workers)
    may_wait = running + 1 if queue is None else queue // 2
    sizes = running + min(running + 1, may_wait), running + may_wait
    return min(sizes[0], MOST_ON_A_CONNECTION), min(sizes[1], MOST_ON_A_CONNECTION)
