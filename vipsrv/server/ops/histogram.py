"""Histograms of durations with log-spaced buckets: eight an octave, so a percentile is right within 5 %.

A histogram is a dictionary of the buckets that are in use, from their index to the count. That is quick to
count into, small while durations are alike, and histograms of several processes can be added.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import log2
from typing import TypeAlias

Histogram: TypeAlias = dict[int, int]
"""How many durations fell into each bucket; bucket ``i`` begins at ``2 ** (i / 8)`` microseconds."""

_PER_OCTAVE = 8


def count(histogram: Histogram, seconds: float) -> None:
    """Count one duration."""
    index = int(log2(seconds * 1e6) * _PER_OCTAVE) if seconds > 1e-6 else 0  # noqa: PLR2004 - a microsecond
    histogram[index] = histogram.get(index, 0) + 1


def add(total: Histogram, more: Histogram) -> None:
    """Count in ``total`` what was counted in ``more``."""
    for index, number in more.items():
        total[index] = total.get(index, 0) + number


def subtract(total: Histogram, part: Histogram) -> None:
    """Take out of ``total`` what was added from ``part``."""
    for index, number in part.items():
        left = total[index] - number
        if left:
            total[index] = left
        else:
            del total[index]


def percentiles(histogram: Histogram, wanted: Sequence[float]) -> list[float] | None:
    """Return milliseconds below which so many percent of the durations are, ``None`` without durations.

    ``wanted`` are percentages in rising order. A value is interpolated within its bucket.
    """
    if not histogram:
        return None
    indices = sorted(histogram)
    sums = list(accumulate(histogram[index] for index in indices))
    found, place = [], 0
    for percent in wanted:
        rank = sums[-1] * percent / 100
        while sums[place] < rank:
            place += 1
        number = histogram[indices[place]]
        part = (rank - (sums[place] - number)) / number
        found.append(2 ** ((indices[place] + part) / _PER_OCTAVE) / 1000)
    return found


def pack(histogram: Histogram) -> list[int]:
    """Return a histogram as a list for JSON: each index and its count in turns."""
    return [number for pair in histogram.items() for number in pair]


def unpack(packed: Iterable[int]) -> Histogram:
    """Return the histogram that was packed."""
    numbers = iter(packed)
    return dict(zip(numbers, numbers, strict=True))
