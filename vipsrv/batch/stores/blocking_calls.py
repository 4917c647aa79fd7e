"""Runs blocking calls of storage: in a few threads of its own, or at once as long as the storage is quick.

To read or write a file that is in the page cache takes less time than to have another thread do it
(``QuickCalls``, decision 46).
"""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import ParamSpec, TypeVar

CHUNK = 1000
"""What a listing yields is passed from its thread in lists of so many: one switch of threads for each."""

SLOW_SECONDS = 0.003
"""If calls wait for longer than this on average, they are made in threads, and the event loop goes on."""

AVERAGED = 16
"""Calls that the average is about: it is a moving one, in which the older ones count less and less."""

FIRST_PAUSE = 0.5
"""Seconds for which calls are made in threads after slow ones. They double each time."""

LONGEST_PAUSE = 30.0
"""Seconds: a disk that was slow for a while is found to be quick again after so long."""

T = TypeVar("T")
P = ParamSpec("P")


class QuickCalls:
    """Decides whether calls are made in the event loop, by how long the last ones have waited.

    Only a call counts in which the thread has waited, by the count of the kernel: not one that lost its core
    to another process for a while.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, waits: Callable[[], int] | None = None
    ) -> None:
        """``waits`` counts how often this thread has waited; it and the ``clock`` are given by tests."""
        self._clock = clock
        self._waits = waits or thread_waits
        self._average = 0.0
        self._threads_until = 0.0
        self._pause = FIRST_PAUSE

    @property
    def quick(self) -> bool:
        """Whether the next call is to be made in the event loop."""
        return self._clock() >= self._threads_until

    def make(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a call here, and note how long it has waited."""
        started, waits = self._clock(), self._waits()
        try:
            return call(*args, **kwargs)
        finally:
            ended = self._clock()
            self._note(ended, ended - started if self._waits() > waits else 0.0)

    def _note(self, now: float, waited: float) -> None:
        self._average += (waited - self._average) / AVERAGED
        if self._average > SLOW_SECONDS:
            self._average = 0.0
            self._threads_until = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        elif now > self._threads_until + LONGEST_PAUSE:
            self._pause = FIRST_PAUSE


_WHOSE = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
"""macOS counts for the whole process only: there a slow call counts more often."""


def thread_waits() -> int:
    """How often this thread has given up its core to wait for something."""
    return resource.getrusage(_WHOSE).ru_nvcsw


class BlockingCalls:
    """A bounded number of threads for calls that wait for a disk or a network.

    They are a store's own, so that slow storage does not take the threads that others need.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"vipsrv-{name}")
        self._quick = QuickCalls()

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what ``call`` returns, or raise what it raises."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: call(*args, **kwargs))

    async def run_quick(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for a call that reads or writes one small file, which is made here while that is quick."""
        if self._quick.quick:
            return self._quick.make(call, *args, **kwargs)
        return await self.run(call, *args, **kwargs)

    async def iterate(self, items: Iterator[T]) -> AsyncIterator[T]:
        """Yield all ``items``; at most one list of them is held."""
        while chunk := await self.run(lambda: list(islice(items, CHUNK))):
            for item in chunk:
                yield item

    def close(self) -> None:
        """End the threads after what they do at the moment."""
        self._executor.shutdown(wait=False, cancel_futures=True)
