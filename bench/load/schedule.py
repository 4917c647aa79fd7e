"""When requests are due: by the clock in an open loop, immediately in a closed loop."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Due:
    """One request: when it is due (``time.monotonic``), and whether it is measured."""

    intended: float
    measured: bool


class Schedule:
    """The schedule of the ``index``-th of ``of`` processes.

    Requests are sent from ``start`` and measured from ``measure_from``, until ``end``, or until this process
    has sent ``count`` measured requests. With a ``rate`` (a second, of all processes together) request number
    ``n`` of this process is due at ``start + (index + n * of) / rate``, so that the requests of all processes
    are evenly spaced, whether or not earlier ones were answered. Without a rate, a request is due whenever it
    can be sent.
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
            raise ValueError("a load needs an end or a count")
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
        """When the next request is due, in a closed loop not before ``now``; ``None`` after the last one."""
        due = max(self._start, now) if self._rate is None else self._intended()
        if self._end is not None and due >= self._end:
            return None
        if self._count is not None and self._measured >= self._count:
            return None
        return due

    def take(self, now: float) -> Due:
        """Take the next request, which is sent now. There must be one."""
        intended = now if self._rate is None else self._intended()
        measured = intended >= self._measure_from
        self._sent += 1
        self._measured += measured
        return Due(intended, measured)

    def _intended(self) -> float:
        assert self._rate is not None
        return self._start + (self._index + self._sent * self._of) / self._rate


def shares(total: int, of: int) -> list[int]:
    """Divide ``total`` things among ``of`` processes as evenly as possible."""
    return [total // of + (number < total % of) for number in range(of)]
