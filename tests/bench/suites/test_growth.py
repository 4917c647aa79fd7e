"""How points of an axis become exponents."""

import pytest

from bench.suites.growth import COSTS, Point, growth


def point(x: float, cost: float) -> Point:
    return Point(x, **dict.fromkeys(COSTS, cost), requests=1, others=0.0)


def test_a_constant_part_lowers_the_exponent_but_little_at_the_large_end() -> None:
    grown = growth([point(x, 2 + 3 * x) for x in (0.01, 1.0, 100.0, 10_000.0)])
    assert set(grown) == set(COSTS)
    for law in grown.values():
        exponent, error, at_end = law["exponent"], law["error"], law["exponent_at_end"]
        assert exponent is not None
        assert error is not None
        assert exponent < 0.8
        assert error > 0.05
        assert at_end == pytest.approx(1, abs=0.01)
        assert law["each"] == pytest.approx(3)


def test_two_points_have_an_exponent_without_an_error() -> None:
    law = growth([point(1, 8.0), point(2, 4.0)])["cpu_ms"]
    assert law == {
        "exponent": pytest.approx(-1),
        "error": None,
        "exponent_at_end": pytest.approx(-1),
        "each": -4.0,
    }
