"""Fits a power law to how a cost grows: ``cost = factor · x ** exponent``."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_LEAST = 2


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """The line of least squares through the logarithms of x and of the cost.

    ``error`` is the standard error of the exponent: a large one says that the points lie on no line, often
    because a constant cost hides the growth at the small end. Two points have none.
    """

    exponent: float
    error: float | None
    factor: float

    def at(self, x: float) -> float:
        """The cost that the law gives for ``x``."""
        return float(self.factor * x**self.exponent)


def fit(x: Sequence[float], cost: Sequence[float]) -> PowerLaw:
    """Fit the law to at least two points with different ``x``.

    Raises ``ValueError`` for fewer, and for a value that is not above 0.
    """
    if min([*x, *cost], default=0.0) <= 0:
        raise ValueError(f"a power law needs values above 0, not x = {list(x)}, cost = {list(cost)}")
    if len(set(x)) < _LEAST:
        raise ValueError(f"a power law needs at least {_LEAST} different x, not {list(x)}")
    horizontal, vertical = ([math.log(value) for value in values] for values in (x, cost))
    centre, height = (math.fsum(values) / len(values) for values in (horizontal, vertical))
    spread = math.fsum((one - centre) ** 2 for one in horizontal)
    slope = (
        math.fsum((one - centre) * (other - height) for one, other in zip(horizontal, vertical, strict=True))
        / spread
    )
    base = height - slope * centre
    left = math.fsum(
        (other - base - slope * one) ** 2 for one, other in zip(horizontal, vertical, strict=True)
    )
    freedom = len(horizontal) - 2
    error = math.sqrt(left / freedom / spread) if freedom > 0 else None
    return PowerLaw(slope, error, math.exp(base))
