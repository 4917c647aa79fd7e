"""A histogram whose classes grow with the values: any range of them in bounded memory."""

import math
from collections import Counter
from typing import Any

from vipsrv.batch.manifest.parts import arrow

PER_DECADE = 200
"""Classes between a value and ten times that: the bounds of a class differ by 1.2 %."""


class Histogram:
    """Counts positive values by the whole number that ``log10(value) * PER_DECADE`` starts with."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def add(self, values: Any) -> None:
        """Count a column of numbers. What is not above zero counts as none."""
        arrow()
        import pyarrow.compute as pc  # noqa: PLC0415 - slow to load, and an extra

        values = values.filter(pc.greater(values, 0))
        if len(values):
            classes = pc.floor(pc.multiply(pc.log10(values), float(PER_DECADE))).cast("int64")
            for one in pc.value_counts(classes).to_pylist():
                self.counts[one["values"]] += one["counts"]

    @property
    def total(self) -> int:
        """How many values were counted."""
        return self.counts.total()

    def quantile(self, share: float) -> float:
        """Return the value that ``share`` of all are not above, as exactly as the classes are."""
        left = max(1, math.ceil(share * self.total))
        for one in sorted(self.counts):
            left -= self.counts[one]
            if left <= 0:
                return float(10 ** ((one + 0.5) / PER_DECADE))
        return math.nan

    def classes(self, per_decade: int) -> list[tuple[float, float, int]]:
        """Return wider classes, from the first that has a value to the last: bounds and count.

        ``PER_DECADE`` is a multiple of ``per_decade``.
        """
        width = PER_DECADE // per_decade
        wide: Counter[int] = Counter()
        for one, count in self.counts.items():
            wide[one // width] += count
        if not wide:
            return []
        return [
            (10 ** (one / per_decade), 10 ** ((one + 1) / per_decade), wide[one])
            for one in range(min(wide), max(wide) + 1)
        ]
