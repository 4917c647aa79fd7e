"""Both clients behind one interface, so that each test of the conformance suite is written once.

``submit`` starts a call and gives a future, in a thread for the blocking client and as a task of an event
loop that runs in a thread for the other; ``call`` waits for it.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from vipsrv.client import AsyncClient, AsyncVersion1Client, Client, Version1Client

CALL_SECONDS = 60.0
"""A call that takes longer counts as hung and fails its test."""


class Adapter:
    """One client of either kind."""

    cancels: bool
    """Whether a started call can be cancelled."""

    def submit(self, method: str, *arguments: Any, **options: Any) -> Future[Any]:
        raise NotImplementedError

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self.submit(method, *arguments, **options).result(CALL_SECONDS)

    def close(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        """Close the client and end the threads of the adapter."""
        raise NotImplementedError


class BlockingAdapter(Adapter):
    cancels = False

    def __init__(self, *arguments: Any, protocol: int = 2, **options: Any) -> None:
        kind = Client if protocol == 2 else Version1Client
        self._client = kind(*arguments, **options)
        self._pool = ThreadPoolExecutor(16)

    def submit(self, method: str, *arguments: Any, **options: Any) -> Future[Any]:
        return self._pool.submit(getattr(self._client, method), *arguments, **options)

    def close(self) -> None:
        self._client.close()

    def end(self) -> None:
        self.close()
        self._pool.shutdown()


class AsyncAdapter(Adapter):
    cancels = True

    def __init__(
        self,
        new_loop: Callable[[], asyncio.AbstractEventLoop],
        *arguments: Any,
        protocol: int = 2,
        **options: Any,
    ) -> None:
        self._loop = new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        kind = AsyncClient if protocol == 2 else AsyncVersion1Client
        self._client = kind(*arguments, **options)

    def submit(self, method: str, *arguments: Any, **options: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(
            getattr(self._client, method)(*arguments, **options), self._loop
        )

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._client.aclose(), self._loop).result(CALL_SECONDS)

    def end(self) -> None:
        self.close()
        ended = asyncio.run_coroutine_threadsafe(self._loop.shutdown_default_executor(), self._loop)
        ended.result(CALL_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS)
        self._loop.close()
