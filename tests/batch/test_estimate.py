"""The figures of a dry run: what a sample says of the whole."""

import random
from collections import Counter

import pytest

from vipsrv.batch.estimate import Range, Reservoir, seconds_of, share_of, student_t, total_of


def test_a_sample_has_no_more_than_its_size_and_nothing_twice() -> None:
    sample: Reservoir[int] = Reservoir(100)
    for item in range(1000):
        sample.add(item)
    assert len(sample.items) == len(set(sample.items)) == 100
    few: Reservoir[int] = Reservoir(100)
    few.add(1)
    assert few.items == [1]


def test_a_sample_is_spread_over_the_listing() -> None:
    sample: Reservoir[int] = Reservoir(1000)
    for item in range(100_000):
        sample.add(item)
    tenths = Counter(item // 10_000 for item in sample.items)
    assert min(tenths.values()) > 60  # 100 are expected; 60 is four standard deviations off
    assert max(tenths.values()) < 140


@pytest.mark.parametrize(("degrees", "value"), [(1, 12.71), (5, 2.571), (9, 2.262), (20, 2.086), (99, 1.984)])
def test_students_t(degrees: int, value: float) -> None:
    assert student_t(degrees) == pytest.approx(value, rel=0.003)


def test_nineteen_ranges_in_twenty_contain_the_total() -> None:
    rng = random.Random(1)
    images = [rng.lognormvariate(10, 0.5) for _ in range(2000)]
    total = sum(images)
    hits = 0
    for _ in range(400):
        found = total_of(rng.sample(images, 100), len(images))
        assert found.high is not None
        hits += found.low <= total <= found.high
    assert 0.91 < hits / 400 < 0.98


def test_the_whole_is_known_exactly() -> None:
    assert total_of([1.0, 5.0], 2) == Range(6, 6, 6)
    assert share_of(1, 4, 4) == Range(1, 1, 1)


def test_one_image_has_no_upper_bound() -> None:
    assert total_of([5.0], 10) == Range(5, 50, None)
    assert seconds_of([2.0], 10) == Range(2, 20, None)


def test_the_total_is_at_least_what_was_seen() -> None:
    found = total_of([0.0, 0.0, 90.0], 4)
    assert found.low == 90


def test_a_steady_rate_has_a_narrow_range_and_an_unsteady_one_a_wide_one() -> None:
    steady = seconds_of([0.1 * index for index in range(1, 101)], 1000)
    assert steady.value == pytest.approx(100)
    assert steady.low == pytest.approx(100)
    slower = seconds_of([0.1 * index + (index > 50) * 0.1 * (index - 50) for index in range(1, 101)], 1000)
    assert slower.value == pytest.approx(150)
    assert slower.low < 130
    assert slower.high is not None
    assert slower.high > 170


def test_no_failure_in_the_sample_does_not_mean_none_at_all() -> None:
    found = share_of(0, 100, 10_000)
    assert (found.low, found.value) == (0, 0)
    assert found.high == pytest.approx(370, abs=2)  # 3.7 %, by the tables of Wilson's interval
    some = share_of(5, 100, 10_000)
    assert some.low == pytest.approx(215, abs=2)
    assert some.high == pytest.approx(1118, abs=2)
