"""Sampling in a thread: what is seen, and what becomes of an error."""

import os

import pytest

from bench.measuring.sampling import Peak, Sampler


def test_the_peak_is_the_sum_over_the_processes() -> None:
    with Peak([1, 2], 0.001, memory_of=lambda pid: pid * 10) as peak:
        while not peak.samples:
            os.sched_yield()
    assert peak.bytes == 30


def test_a_sample_that_fails_ends_the_sampling_and_is_raised() -> None:
    def fail(_: int) -> int:
        raise FileNotFoundError("no such process")

    with (  # noqa: PT012 - the end of the `with` raises
        pytest.raises(FileNotFoundError, match="no such process"),
        Peak([1], 0.001, memory_of=fail) as peak,
    ):
        while peak.error is None:
            os.sched_yield()
    assert peak.samples == 1


def test_an_error_within_the_with_is_not_replaced() -> None:
    def fail() -> None:
        raise FileNotFoundError

    with pytest.raises(ZeroDivisionError), Sampler(fail, 0.001) as sampler:  # noqa: PT012 - the error is its subject
        while sampler.error is None:
            os.sched_yield()
        raise ZeroDivisionError
