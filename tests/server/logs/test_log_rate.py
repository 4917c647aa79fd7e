"""How many lines of a kind are written, and how those that are left out are counted."""

import math

from vipsrv.server.logs.log_rate import LONGEST_SECONDS, MOST_A_SECOND, MOST_KINDS, LeftOut, LogRate


def admitted(rate: LogRate[str], kind: str, lines: int, now: float) -> int:
    return sum(rate.admit(kind, now) for _ in range(lines))


def test_lines_within_the_limit_are_written_and_none_is_reported() -> None:
    rate = LogRate(rest="rest")
    assert admitted(rate, "a", MOST_A_SECOND, 0.0) == MOST_A_SECOND
    assert rate.take_left_out(math.inf) == {}


def test_further_lines_are_counted_until_a_second_has_passed_without_one() -> None:
    rate = LogRate(rest="rest")
    assert admitted(rate, "a", MOST_A_SECOND + 7, 5.0) == MOST_A_SECOND
    assert rate.next_end() == 6.0
    assert rate.take_left_out(5.9) == {}
    assert rate.take_left_out(6.0) == {"a": LeftOut(7, 0.0)}
    assert rate.take_left_out(math.inf) == {}
    assert rate.next_end() == math.inf


def test_a_flood_is_one_line_and_a_count() -> None:
    rate = LogRate(rest="rest")
    times = [10.0 + number * 4 / 697 for number in range(698)]
    assert [now for now in times if rate.admit("busy", now, most=1)] == [10.0]
    assert rate.take_left_out(14.9) == {}
    assert rate.take_left_out(15.0) == {"busy": LeftOut(697, 4.0)}


def test_a_flood_that_does_not_end_is_counted_in_parts() -> None:
    rate = LogRate(rest="rest")
    times = [number / 10 for number in range(int(LONGEST_SECONDS) * 20)]
    admitted_at = [now for now in times if rate.admit("busy", now, most=1)]
    assert admitted_at == [0.0, LONGEST_SECONDS]
    assert rate.take_left_out(math.inf)["busy"].lines == len(times) - 2


def test_the_next_second_has_lines_of_its_own() -> None:
    rate = LogRate(rest="rest")
    assert admitted(rate, "a", MOST_A_SECOND, 0.0) == MOST_A_SECOND
    assert admitted(rate, "a", MOST_A_SECOND, 1.0) == MOST_A_SECOND
    assert rate.take_left_out(math.inf) == {}


def test_counts_that_nobody_has_taken_are_added_up() -> None:
    rate = LogRate(rest="rest")
    admitted(rate, "a", MOST_A_SECOND + 2, 0.0)
    assert admitted(rate, "a", MOST_A_SECOND + 3, 1.0) == MOST_A_SECOND
    assert rate.take_left_out(2.0) == {"a": LeftOut(5, 0.0)}


def test_kinds_do_not_share_their_limit() -> None:
    rate = LogRate(rest="rest")
    admitted(rate, "a", MOST_A_SECOND + 1, 0.0)
    assert rate.admit("b", 0.0)
    assert rate.take_left_out(math.inf) == {"a": LeftOut(1, 0.0)}


def test_the_number_of_kinds_is_bounded() -> None:
    rate = LogRate(rest="rest")
    for kind in range(MOST_KINDS):
        assert rate.admit(str(kind), 0.0)
    assert sum(rate.admit(f"new {kind}", 0.5) for kind in range(100)) == MOST_A_SECOND
    assert rate.take_left_out(math.inf) == {"rest": LeftOut(100 - MOST_A_SECOND, 0.0)}
    assert rate.admit("new", 2.0)
