"""Histograms of any range of values."""

import math
import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipsrv.batch.report.histogram import PER_DECADE, Histogram


def histogram(*values: float) -> Histogram:
    made = Histogram()
    made.add(pa.chunked_array([pa.array(values, pa.float64())]))
    return made


@given(st.lists(st.floats(1e-9, 1e12), min_size=1, max_size=50))
def test_each_value_is_in_the_class_of_its_bounds(values: list[float]) -> None:
    made = histogram(*values)
    assert made.total == len(values)
    for per_decade in (PER_DECADE, 10, 1):
        classes = made.classes(per_decade)
        assert sum(count for _, _, count in classes) == len(values)
        assert classes[0][0] <= min(values) * 1.000001
        assert classes[-1][1] >= max(values) * 0.999999
        assert classes[0][2] > 0
        assert classes[-1][2] > 0


def test_quantiles_are_as_exact_as_the_classes() -> None:
    values = random.Random(1).sample(range(1, 100_000), 5000)
    made = histogram(*values)
    for share in (0.01, 0.5, 0.99, 1):
        exact = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
        assert made.quantile(share) == pytest.approx(exact, rel=0.04)


def test_what_is_not_above_zero_is_left_out() -> None:
    assert histogram(0, -1, math.nan, 1).total == 1
    assert histogram(0).classes(10) == []
    assert math.isnan(histogram().quantile(0.5))
