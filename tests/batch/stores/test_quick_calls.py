"""Calls of storage are made in the event loop while storage is quick, and otherwise in threads."""

import threading
import time

import pytest

from vipsrv.batch.stores.blocking_calls import (
    AVERAGED,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    SLOW_SECONDS,
    BlockingCalls,
    QuickCalls,
    thread_waits,
)


class Clock:
    """A clock and a count of waits, which the calls of a test move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits = 0

    def wait(self, seconds: float) -> str:
        self.waits += 1
        self.now += seconds
        return "done"

    def compute(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def calls(clock: Clock) -> QuickCalls:
    return QuickCalls(lambda: clock.now, lambda: clock.waits)


def test_one_slow_call_is_no_reason(clock: Clock, calls: QuickCalls) -> None:
    assert calls.make(clock.wait, 2 * SLOW_SECONDS) == "done"
    assert calls.quick


def test_calls_that_are_slow_go_to_threads_for_a_while(clock: Clock, calls: QuickCalls) -> None:
    pause = FIRST_PAUSE
    while pause <= LONGEST_PAUSE:
        made = 0
        while calls.quick:
            calls.make(clock.wait, 2 * SLOW_SECONDS)
            made += 1
        assert made <= 2 * AVERAGED
        clock.now += 0.99 * pause
        assert not calls.quick
        clock.now += 0.02 * pause
        assert calls.quick
        pause *= 2


def test_a_call_that_did_not_wait_is_not_slow(clock: Clock, calls: QuickCalls) -> None:
    """It lost its core to another process, or it was long work."""
    for _ in range(100):
        calls.make(clock.compute, 1.0)
    assert calls.quick


async def test_where_a_call_is_made() -> None:
    calls = BlockingCalls(1, "test")
    try:
        assert await calls.run_quick(threading.get_ident) == threading.get_ident()
        assert await calls.run(threading.get_ident) != threading.get_ident()
    finally:
        calls.close()


def test_the_kernel_counts_what_waits() -> None:
    before = thread_waits()
    time.sleep(0.0001)
    assert thread_waits() > before
