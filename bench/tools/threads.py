"""Calls made at the same time, in threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def run_together(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """Make all calls at the same time, each in a thread, and return their results.

    When all have ended, raises what one of them raised; an exception in a plain thread would go unnoticed.
    """
    with ThreadPoolExecutor(len(calls)) as threads:
        running = [threads.submit(call) for call in calls]
    return [one.result() for one in running]
