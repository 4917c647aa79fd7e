"""The figures of one gateway at one moment, as a value that JSON can hold, and those of several as one.

::

    gateway 1 ── Figures ──► value ──┐
    gateway 2 ── Figures ──► value ──┼── merged ──► Figures of the server ──► page
    gateways that have ended ──► ────┘
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from vipsrv.server.metrics.catalogue import METRICS, Merge, Metric

Labels: TypeAlias = tuple[str, ...]


@dataclass(slots=True)
class Histogram:
    """How many values are at most each bound and above the one before, the last ones above all bounds."""

    counts: list[int]
    sum: float = 0.0

    @classmethod
    def of(cls, bounds: tuple[float, ...]) -> Self:
        """Return one without values."""
        return cls([0] * (len(bounds) + 1))

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts)

    def copy(self) -> "Histogram":
        """Return one that does not change any more."""
        return Histogram(self.counts.copy(), self.sum)

    def __add__(self, other: "Histogram") -> "Histogram":
        """Return the values of both."""
        counts = [one + another for one, another in zip(self.counts, other.counts, strict=True)]
        return Histogram(counts, self.sum + other.sum)


Value: TypeAlias = int | float | Histogram


class Figures:
    """The values of metrics, each by its labels."""

    def __init__(self) -> None:
        self.values: dict[str, dict[Labels, Value]] = {}

    def add(self, metric: Metric, value: Value, *labels: str) -> None:
        """Add a value; one with the same labels is merged with it."""
        values = self.values.setdefault(metric.name, {})
        before = values.get(labels)
        values[labels] = value if before is None else _merge(metric.merge, before, value)

    def get(self, metric: Metric, *labels: str) -> Value | None:
        """Return the value with these labels, or ``None``."""
        return self.values.get(metric.name, {}).get(labels)

    def update(self, other: "Figures") -> None:
        """Merge all values of others into these."""
        for name, values in other.values.items():
            metric = METRICS[name]
            for labels, value in values.items():
                self.add(metric, value, *labels)

    def to_json(self) -> dict[str, Any]:
        """Return a value that JSON can hold."""
        return {
            name: [
                [labels, [value.counts, value.sum] if isinstance(value, Histogram) else value]
                for labels, value in values.items()
            ]
            for name, values in self.values.items()
        }

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Self:
        """Return what ``to_json`` has made a value of."""
        figures = cls()
        figures.values = {
            name: {
                tuple(labels): Histogram(*value) if isinstance(value, list) else value
                for labels, value in values
            }
            for name, values in given.items()
        }
        return figures


def _merge(merge: Merge, one: Value, another: Value) -> Value:
    if isinstance(one, Histogram):
        assert isinstance(another, Histogram)  # noqa: S101 - they have the same name
        return one + another
    assert not isinstance(another, Histogram)  # noqa: S101
    if merge is Merge.SUM:
        return one + another
    return max(one, another) if merge is Merge.MAX else min(one, another)


def merged(snapshots: Iterable[Figures]) -> Figures:
    """Return the figures of several gateways as one."""
    figures = Figures()
    for one in snapshots:
        figures.update(one)
    return figures
