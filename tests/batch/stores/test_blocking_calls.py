"""Blocking calls in threads of their own."""

import asyncio
import itertools
import threading

import pytest

from vipsrv.batch.stores.blocking_calls import CHUNK, BlockingCalls


async def test_no_more_is_taken_from_a_listing_than_a_list_of_items() -> None:
    calls = BlockingCalls(1, "test")
    taken = itertools.count()
    items = calls.iterate(iter(lambda: next(taken), -1))  # without an end
    assert [await anext(items) for _ in range(CHUNK + 10)] == list(range(CHUNK + 10))
    assert next(taken) == 2 * CHUNK
    calls.close()


async def test_an_error_of_a_listing_comes_after_what_was_whole() -> None:
    calls = BlockingCalls(1, "test")
    items = calls.iterate(itertools.chain(range(CHUNK + 3), iter(lambda: 1 // 0, None)))
    assert [await anext(items) for _ in range(CHUNK)] == list(range(CHUNK))
    with pytest.raises(ZeroDivisionError):
        await anext(items)
    calls.close()


async def test_calls_wait_for_each_other_only_if_all_threads_are_used() -> None:
    calls = BlockingCalls(2, "test")
    barrier = threading.Barrier(2)
    await asyncio.gather(calls.run(barrier.wait, 30), calls.run(barrier.wait, 30))
    calls.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        await calls.run(print)
