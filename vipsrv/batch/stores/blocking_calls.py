"""Runs blocking calls of storage in a few threads of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import ParamSpec, TypeVar

CHUNK = 1000
"""What a listing yields is passed from its thread in lists of so many: one switch of threads for each."""

T = TypeVar("T")
P = ParamSpec("P")


class BlockingCalls:
    """A bounded number of threads for calls that wait for a disk or a network.

    They are a store's own, so that slow storage does not take the threads that others need.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"vipsrv-{name}")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what ``call`` returns, or raise what it raises."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: call(*args, **kwargs))

    async def iterate(self, items: Iterator[T]) -> AsyncIterator[T]:
        """Yield all ``items``; at most one list of them is held."""
        while chunk := await self.run(lambda: list(islice(items, CHUNK))):
            for item in chunk:
                yield item

    def close(self) -> None:
        """End the threads after what they do at the moment."""
        self._executor.shutdown(wait=False, cancel_futures=True)
