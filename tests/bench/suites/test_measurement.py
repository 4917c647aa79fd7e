import pytest

from bench.suites.measurement import Scale

QUICK = Scale(rounds=11, seconds=0.1)


@pytest.mark.parametrize(
    ("once", "at_once", "requests"), [(0.005, 1, 20), (0.5, 1, 2), (0.005, 8, 24), (0.05, 8, 8)]
)
def test_a_round_has_a_multiple_of_the_requests_in_flight(once: float, at_once: int, requests: int) -> None:
    assert QUICK.requests(once, at_once) == requests


def test_a_round_has_the_least_number_of_requests_a_connection() -> None:
    assert QUICK.requests(0.05, 8, each=6) == 48
    assert QUICK.requests(0.001, 8, each=6) == 104
    assert QUICK.requests(0.5, 1, each=6) == 6


@pytest.mark.parametrize(("seconds", "rounds"), [(0.1, 11), (0.01, 11), (0.15, 7), (4.0, 5)])
def test_rounds_that_take_long_are_fewer_but_never_less_than_five(seconds: float, rounds: int) -> None:
    assert QUICK.rounds_of(seconds) == rounds
