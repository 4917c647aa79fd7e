"""When requests are due: by the clock in an open loop, at once in a closed one."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Due:
    """One request: when it was to be sent (``time.monotonic``), and whether it counts."""

    intended: float
    measured: bool


class Schedule:
    """The requests of one of ``of`` processes, the ``index``-th.

    All send from ``start`` on and measure from ``measure_from``; until ``end``, or until this process has
    sent ``count`` measured requests. With a ``rate`` (of all processes together, a second) request number
    ``n`` of this process is due at ``start + (index + n * of) / rate``, so that those of all processes are
    evenly spaced, whether or not earlier ones were answered. Without one, a request is due whenever it can be
    sent.
    """

    def __init__(
        self,
        *,
        start: float,
        measure_from: float,
        end: float | None = None,
        count: int | None = None,
        rate: float | None = None,
        index: int = 0,
        of: int = 1,
    ) -> None:
        if end is None and count is None:
            raise ValueError("a load without an end or a count would never end")
        self._start = start
        self._measure_from = measure_from
        self._end = end
        self._count = count
        self._rate = rate
        self._index = index
        self._of = of
        self._sent = 0
        self._measured = 0

    def next_due(self, now: float) -> float | None:
        """When the next request is due, not before ``now`` in a closed loop; ``None`` for no more."""
        due = max(self._start, now) if self._rate is None else self._intended()
        if self._end is not None and due >= self._end:
            return None
        if self._count is not None and self._measured >= self._count:
            return None
        return due

    def take(self, now: float) -> Due:
        """The next request, to be sent now. There has to be one."""
        intended = now if self._rate is None else self._intended()
        measured = intended >= self._measure_from
        self._sent += 1
        self._measured += measured
        return Due(intended, measured)

    def _intended(self) -> float:
        assert self._rate is not None
        return self._start + (self._index + self._sent * self._of) / self._rate


def shares(total: int, of: int) -> list[int]:
    """``total`` things dealt out to ``of`` processes as evenly as can be."""
    return [total // of + (number < total % of) for number in range(of)]
