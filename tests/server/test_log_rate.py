"""How many lines of a kind are written, and how those that are left out are counted."""

import math

from vipsrv.server.log_rate import MOST_A_SECOND, MOST_KINDS, LogRate


def admitted(rate: LogRate[str], kind: str, lines: int, now: float) -> int:
    return sum(rate.admit(kind, now) for _ in range(lines))


def test_lines_within_the_limit_are_written_and_none_is_reported() -> None:
    rate = LogRate(rest="rest")
    assert admitted(rate, "a", MOST_A_SECOND, 0.0) == MOST_A_SECOND
    assert rate.take_left_out(math.inf) == {}


def test_further_lines_are_counted_until_their_second_has_passed() -> None:
    rate = LogRate(rest="rest")
    assert admitted(rate, "a", MOST_A_SECOND + 7, 5.0) == MOST_A_SECOND
    assert rate.next_end() == 6.0
    assert rate.take_left_out(5.9) == {}
    assert rate.take_left_out(6.0) == {"a": 7}
    assert rate.take_left_out(math.inf) == {}
    assert rate.next_end() == math.inf


def test_the_next_second_has_lines_of_its_own_and_forgets_no_count() -> None:
    rate = LogRate(rest="rest")
    admitted(rate, "a", MOST_A_SECOND + 2, 0.0)
    assert admitted(rate, "a", MOST_A_SECOND + 3, 1.0) == MOST_A_SECOND
    assert rate.take_left_out(2.0) == {"a": 5}


def test_kinds_do_not_share_their_limit() -> None:
    rate = LogRate(rest="rest")
    admitted(rate, "a", MOST_A_SECOND + 1, 0.0)
    assert rate.admit("b", 0.0)
    assert rate.take_left_out(math.inf) == {"a": 1}


def test_the_number_of_kinds_is_bounded() -> None:
    rate = LogRate(rest="rest")
    for kind in range(MOST_KINDS):
        assert rate.admit(str(kind), 0.0)
    assert sum(rate.admit(f"new {kind}", 0.5) for kind in range(100)) == MOST_A_SECOND
    assert rate.take_left_out(math.inf) == {"rest": 100 - MOST_A_SECOND}
    assert rate.admit("new", 2.0)
