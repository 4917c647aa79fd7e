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


def test_the_calls_of_each_name_and_of_all() -> None:
    assert parse_summary(SUMMARY) == ({"read": 100, "epoll_pwait": 50}, 150)


def test_a_summary_without_errors_in_it() -> None:
    text = SUMMARY.replace("        12 read", "           read").replace(
        "        12 total", "           total"
    )
    assert parse_summary(text) == ({"read": 100, "epoll_pwait": 50}, 150)


def test_no_call_at_all_is_an_empty_summary() -> None:
    assert parse_summary("") == ({}, 0)


def test_what_is_no_summary_is_refused() -> None:
    with pytest.raises(ValueError, match="without a total"):
        parse_summary("strace: Process 1 detached\n")
