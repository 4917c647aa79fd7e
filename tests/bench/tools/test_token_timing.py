"""The check of a token's timing: what it measures, and that its test finds a difference and no other."""

import random

import pytest

from bench.tools.token_timing import CHANGED, KINDS, Difference, WrongTokens, compare, controls, measure
from vipsrv.errors import Unauthorized
from vipsrv.server.identity.tokens import new_token, split_token

ROUNDS = 20_000


def times(generator: random.Random, shift: dict[str, int]) -> dict[str, list[int]]:
    """Times around 1500 ns that drift, as on a machine with other work, plus those of a kind's own."""
    drift = [1500 + 400 * (number // 1000 % 3) for number in range(ROUNDS)]
    return {
        kind: [mean + round(generator.gauss(0, 100)) + shift.get(kind, 0) for mean in drift] for kind in KINDS
    }


def test_equal_times_are_no_difference() -> None:
    generator = random.Random(1)
    runs = [compare(times(generator, {})) for _ in range(20)]
    assert [one for run in runs for one in run if one.found] == []


def test_a_few_nanoseconds_more_of_one_kind_are_found() -> None:
    found = {
        (one.first, one.second): one.z for one in compare(times(random.Random(1), {"late": 10})) if one.found
    }
    assert set(found) == {("early", "late"), ("late", "unknown")}
    assert found["early", "late"] < 0 < found["late", "unknown"]


def test_the_bound_is_that_of_one_false_alarm_in_1000_runs_of_three_pairs() -> None:
    assert not Difference("early", "late", 3.58).found
    assert Difference("early", "late", -3.60).found


def test_the_wrong_tokens_are_those_that_are_described() -> None:
    token = new_token()
    wrong = WrongTokens([token])
    early, late, unknown = (split_token(wrong.make(kind)) for kind in KINDS)
    assert early.id == late.id == token.id != unknown.id
    assert len(early.secret) == len(late.secret) == len(unknown.secret) == len(token.secret)
    assert early.secret[CHANGED:] == token.secret[CHANGED:]
    assert late.secret[:-CHANGED] == token.secret[:-CHANGED]
    assert early.secret[0] != token.secret[0]
    assert late.secret[-1] != token.secret[-1]


def test_every_kind_is_timed_as_often_and_in_every_place_of_a_round() -> None:
    token = new_token()
    seen: list[str] = []

    def check(text: str) -> None:
        seen.append(text)
        raise Unauthorized("wrong")

    taken = measure(check, WrongTokens([token]), 1000)
    assert [len(taken[kind]) for kind in KINDS] == [1000] * 3
    places = {number % 3 for number, text in enumerate(seen) if split_token(text).id != token.id}
    assert places == {0, 1, 2}


def test_a_check_that_accepts_a_wrong_token_is_noticed() -> None:
    with pytest.raises(AssertionError, match="a wrong token was accepted"):
        measure(str, WrongTokens([new_token()]), 1000)


def test_the_controls_refuse_every_wrong_token() -> None:
    token = new_token()
    wrong = WrongTokens([token])
    for check in controls([token]).values():
        for kind in KINDS:
            with pytest.raises(Unauthorized):
                check(wrong.make(kind))
