"""Histograms of durations: what they count, and the percentiles that they state."""

import json
import random

import pytest

from vipsrv.server.ops.histogram import Histogram, add, count, pack, percentiles, subtract, unpack


def counted(*seconds: float) -> Histogram:
    histogram: Histogram = {}
    for one in seconds:
        count(histogram, one)
    return histogram


def test_percentiles_are_right_within_a_bucket() -> None:
    durations = [random.Random(7).lognormvariate(-5, 1) for _ in range(5000)]
    found = percentiles(counted(*durations), (50, 95, 99))
    assert found is not None
    for percent, value in zip((50, 95, 99), found, strict=True):
        exact = sorted(durations)[int(len(durations) * percent / 100) - 1] * 1000
        assert value == pytest.approx(exact, rel=0.1)


def test_nothing_has_no_percentiles() -> None:
    assert percentiles({}, (50,)) is None


@pytest.mark.parametrize("seconds", [-0.001, 0.0, 1e-7])
def test_what_a_clock_cannot_tell_falls_into_the_first_bucket(seconds: float) -> None:
    assert counted(seconds) == {0: 1}


def test_sums_of_histograms_are_exact() -> None:
    one, two = counted(0.001, 0.002), counted(0.002, 3)
    total: Histogram = {}
    add(total, one)
    add(total, two)
    assert total == counted(0.001, 0.002, 0.002, 3)
    subtract(total, two)
    assert total == one


def test_a_histogram_survives_json() -> None:
    histogram = counted(0.001, 0.001, 5)
    assert unpack(json.loads(json.dumps(pack(histogram)))) == histogram
