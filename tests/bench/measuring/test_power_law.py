import math

import pytest

from bench.measuring.power_law import fit

X = (1.0, 10.0, 100.0, 1000.0)


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_points_on_a_power_law_give_its_exponent_without_an_error(exponent: float) -> None:
    law = fit(X, [3 * x**exponent for x in X])
    assert law.exponent == pytest.approx(exponent, abs=1e-12)
    assert law.error == pytest.approx(0, abs=1e-12)
    assert law.factor == pytest.approx(3)
    assert law.at(50) == pytest.approx(3 * 50**exponent)


def test_the_error_is_the_standard_error_of_the_slope() -> None:
    # In logarithms to base 10: slope 1 through (0, 0), (1, 1), (2, 2), which miss by -d, 2d and -d.
    missed = 0.1
    law = fit((1, 10, 100), [10 ** (0 - missed), 10 ** (1 + 2 * missed), 10 ** (2 - missed)])
    assert law.exponent == pytest.approx(1)
    assert law.error == pytest.approx(math.sqrt(6 * missed**2 / 1 / 2))


def test_two_points_have_no_error() -> None:
    law = fit((1, 2), (5, 10))
    assert law.exponent == pytest.approx(1)
    assert law.error is None


@pytest.mark.parametrize(
    ("x", "cost", "said"),
    [
        ((), (), "above 0"),
        ((1.0, 0.0), (1.0, 1.0), "above 0"),
        ((1.0, 2.0), (1.0, -1.0), "above 0"),
        ((1.0,), (1.0,), "2 different x"),
        ((2.0, 2.0), (1.0, 3.0), "2 different x"),
    ],
)
def test_points_without_a_power_law_are_refused(
    x: tuple[float, ...], cost: tuple[float, ...], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        fit(x, cost)
