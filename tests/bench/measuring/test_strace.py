import pytest

from bench.measuring.strace import parse_summary

SUMMARY = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           6       100        12 read
 40.00    0.000400           8        50           epoll_pwait
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           6       150        12 total
"""


def test_calls_are_counted_by_name_and_in_total() -> None:
    assert parse_summary(SUMMARY) == ({"read": 100, "epoll_pwait": 50}, 150)


def test_a_summary_without_an_errors_column_is_parsed() -> None:
    text = SUMMARY.replace("        12 read", "           read").replace(
        "        12 total", "           total"
    )
    assert parse_summary(text) == ({"read": 100, "epoll_pwait": 50}, 150)


def test_an_empty_summary_means_no_call() -> None:
    assert parse_summary("") == ({}, 0)


def test_an_invalid_summary_is_refused() -> None:
    with pytest.raises(ValueError, match="without a total"):
        parse_summary("strace: Process 1 detached\n")
