"""How busy the workers of one gateway were in each of the last seconds: cores in use, requests that wait.

It is recorded whether or not somebody watches, so that whoever looks later sees the same past as all others.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypedDict

from vipsrv.server.ops.live import KEPT_SECONDS, RECENT_SECONDS

Load = tuple[float | None, int]
"""The cores that the workers have used, ``None`` if that is unknown, and the requests that wait."""


class LoadCounts(TypedDict):
    """The load of one gateway as JSON: ``seconds`` ends with ``second``, the last complete one."""

    second: int
    seconds: list[Load | None]


class LoadHistory:
    """Records the load of a gateway once a second.

    ``cpu_seconds`` returns what each worker has used since its start, by process id; ``waiting`` returns how
    many requests wait. ``clock`` is ``time.monotonic``, except in tests.
    """

    def __init__(
        self,
        cpu_seconds: Callable[[], Mapping[int, float]],
        waiting: Callable[[], int],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cpu_seconds = cpu_seconds
        self._waiting = waiting
        self._clock = clock
        self._seconds: deque[tuple[int, Load]] = deque(maxlen=KEPT_SECONDS)
        self._measured = 0.0  # when the workers were looked at, 0 for never
        self._cpu: Mapping[int, float] = {}

    def watch(self, now: float) -> None:
        """Record the second before ``now``, unless that is done already."""
        if int(now) == int(self._measured):
            return
        cpu = self._cpu_seconds()
        # A worker that has just started has no value to compare with.
        used = [seconds - self._cpu[pid] for pid, seconds in cpu.items() if pid in self._cpu]
        cores = round(max(0.0, sum(used)) / (now - self._measured), 3) if used else None
        self._seconds.append((int(now) - 1, (cores, self._waiting())))
        self._measured, self._cpu = now, cpu

    def recent(self) -> LoadCounts:
        """Return the last seconds."""
        return self._counts(RECENT_SECONDS)

    def history(self) -> LoadCounts:
        """Return all seconds that are kept."""
        return self._counts(KEPT_SECONDS)

    def _counts(self, length: int) -> LoadCounts:
        now = self._clock()
        self.watch(now)
        last = int(now) - 1
        found: list[Load | None] = [None] * length
        for number, load in self._seconds:
            place = length - 1 - (last - number)
            if 0 <= place < length:
                found[place] = load
        return LoadCounts(second=last, seconds=found)
