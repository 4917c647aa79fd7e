"""What a batch will take, from a random sample of its images: a value and a range for each figure.

The range of a figure is its 95 % confidence interval, by Student's t: if many samples were drawn, the ranges
of 19 in 20 would contain what the whole batch takes. If a few images are much larger than all others, a
sample is likely to have none of them, and the range is too low. If the sample is the whole batch, the number
of bytes is exact.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev
from typing import Generic, TypeVar

T = TypeVar("T")

_SMALL_SAMPLES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306)
"""Student's t, two-sided 95 %, for 1 to 8 degrees of freedom."""

_NORMAL = 1.959964
"""The same for infinitely many."""

_GROUPS = 10
"""Groups of images in the order in which they end: their rates differ as those of parts of a batch do."""


@dataclass(frozen=True, slots=True)
class Range:
    """The most likely value of a figure, and the bounds between which it is expected.

    ``high`` is ``None`` if the sample says nothing of it.
    """

    low: float
    value: float
    high: float | None


class Reservoir(Generic[T]):
    """A random sample of items of which nobody knows beforehand how many will come, in bounded memory.

    Each item has the same chance (algorithm R, Vitter 1985). The same items give the same sample.
    """

    def __init__(self, most: int) -> None:
        self.items: list[T] = []
        self._most = most
        self._seen = 0
        self._random = random.Random(0)  # noqa: S311 - no secret; the same listing has the same estimate

    def add(self, item: T) -> None:
        """Take an item into account."""
        self._seen += 1
        if len(self.items) < self._most:
            self.items.append(item)
        elif (place := self._random.randrange(self._seen)) < self._most:
            self.items[place] = item


def total_of(values: Sequence[float], population: int) -> Range:
    """Estimate the sum of a figure over ``population`` images from its ``values`` in the sample."""
    size = len(values)
    value = fmean(values) * population
    if size >= population:
        return Range(value, value, value)
    if size == 1:
        return Range(values[0], value, None)
    error = stdev(values) / math.sqrt(size) * math.sqrt(1 - size / population)
    spread = student_t(size - 1) * error * population
    return Range(max(sum(values), value - spread), value, value + spread)


def seconds_of(ended: Sequence[float], population: int) -> Range:
    """Estimate the time for ``population`` images.

    ``ended`` are the seconds from the start of the sample to the end of each of its images.
    """
    moments = sorted(ended)
    per_image = moments[-1] / len(moments)
    value = per_image * population
    groups = min(_GROUPS, len(moments))
    if groups == 1:
        return Range(moments[-1], value, None)
    bounds = [round(index * len(moments) / groups) for index in range(groups + 1)]
    rates = [
        (moments[end - 1] - (moments[start - 1] if start else 0.0)) / (end - start)
        for start, end in pairwise(bounds)
    ]
    spread = student_t(groups - 1) * stdev(rates) / math.sqrt(groups) * population
    return Range(max(0.0, value - spread), value, value + spread)


def share_of(count: int, size: int, population: int) -> Range:
    """Estimate how many of ``population`` images are such as ``count`` of the ``size`` in the sample.

    The range is Wilson's, which is sensible for few and for none.
    """
    if size >= population:
        return Range(count, count, count)
    share, square = count / size, _NORMAL**2
    centre = (share + square / (2 * size)) / (1 + square / size)
    spread = _NORMAL * math.sqrt(share * (1 - share) / size + square / (4 * size**2)) / (1 + square / size)
    low, high = max(0.0, centre - spread), min(1.0, centre + spread)
    return Range(
        max(count, math.floor(low * population)),
        share * population,
        min(population - (size - count), math.ceil(high * population)),
    )


def student_t(degrees: int) -> float:
    """Return Student's t, two-sided 95 %; after the first few by Cornish and Fisher's expansion."""
    if degrees <= len(_SMALL_SAMPLES):
        return _SMALL_SAMPLES[degrees - 1]
    z = _NORMAL
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
