"""Clients that are forked, used in a second event loop, or dropped without being closed."""

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client.fake_server import SECONDS
from tests.support.images import jpeg
from tests.support.running_server import RunningServer, wait_until
from vipsrv.client import AsyncClient, Client

IMAGE = jpeg(40, 30)

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def succeeds_in_a_child(work: Callable[[], object]) -> bool:
    """Whether ``work`` returns something true in a forked child within the time of a test."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    killer = threading.Timer(SECONDS, os.kill, (child, 9))
    killer.start()
    try:
        return os.waitpid(child, 0)[1] == 0
    finally:
        killer.cancel()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_a_connection_of_its_own(server: RunningServer) -> None:
    with Client(server.host, server.port) as client:
        assert client.ping() > 0

        def work() -> bool:
            sizes = range(10, 30)
            return [client.resize(IMAGE, width=size, height=9).width for size in sizes] == list(sizes)

        assert succeeds_in_a_child(work)
        assert client.ping() > 0  # the parent's connection is as it was


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_while_a_lock_is_held(server: RunningServer) -> None:
    with Client(server.host, server.port) as client:
        stopped = threading.Event()

        def call_on_and_on() -> None:
            while not stopped.is_set():
                client.ping()

        busy = threading.Thread(target=call_on_and_on)
        busy.start()
        try:
            assert all(succeeds_in_a_child(client.ping) for _ in range(10))
        finally:
            stopped.set()
            busy.join(SECONDS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_does_not_use_the_parents_asyncio_connection(server: RunningServer) -> None:
    client = AsyncClient(server.host, server.port)

    async def ping_and_close() -> float:
        seconds = await client.ping()
        await client.aclose()
        return seconds

    async def scenario() -> bool:
        assert await client.ping() > 0
        in_child = await asyncio.to_thread(
            succeeds_in_a_child, lambda: asyncio.new_event_loop().run_until_complete(ping_and_close())
        )
        assert await client.ping() > 0
        await client.aclose()
        return in_child

    assert asyncio.run(scenario())


async def _ping(client: AsyncClient) -> float:
    return await client.ping()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_second_event_loop_has_a_connection_of_its_own(server: RunningServer) -> None:
    client = AsyncClient(server.host, server.port)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    assert first.run_until_complete(_ping(client)) > 0
    assert second.run_until_complete(_ping(client)) > 0
    second.run_until_complete(client.aclose())
    first.close()
    second.close()
    del client, first, second
    gc.collect()  # of the transport that the first loop left open, of which asyncio warns


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_event_loop_that_has_ended_is_replaced(server: RunningServer) -> None:
    client = AsyncClient(server.host, server.port)
    for _ in range(2):
        assert asyncio.run(_ping(client)) > 0
    asyncio.run(client.aclose())
    del client
    gc.collect()  # of the transport that the first loop left open, of which asyncio warns


async def test_two_event_loops_at_the_same_time_are_refused(server: RunningServer) -> None:
    async with AsyncClient(server.host, server.port) as client:
        assert await client.ping() > 0
        with pytest.raises(RuntimeError, match="in use in another event loop; make one for each loop"):
            await asyncio.to_thread(lambda: asyncio.run(_ping(client)))
        assert await client.ping() > 0


def test_without_an_event_loop_the_reason_is_given() -> None:
    call = AsyncClient().ping()
    with pytest.raises(RuntimeError, match="needs a running asyncio event loop"):
        call.send(None)


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
def test_a_dropped_client_is_closed_with_a_warning(server: RunningServer) -> None:
    def use_and_drop() -> None:
        client = Client(server.host, server.port)
        assert client.ping() > 0
        del client
        gc.collect()

    descriptors, threads = _descriptors(), threading.active_count()
    for _ in range(5):
        with pytest.warns(ResourceWarning, match="unclosed Client"):
            use_and_drop()
    wait_until(lambda: threading.active_count() == threads, "the end of the reader threads")
    assert _descriptors() == descriptors


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
async def test_a_dropped_async_client_is_closed_with_a_warning(server: RunningServer) -> None:
    async def use_and_drop() -> None:
        client = AsyncClient(server.host, server.port)
        assert await client.ping() > 0
        del client
        gc.collect()

    descriptors = _descriptors()
    for _ in range(5):
        with pytest.warns(ResourceWarning, match="unclosed AsyncClient"):
            await use_and_drop()
    async with asyncio.timeout(SECONDS):
        while _descriptors() != descriptors:
            await asyncio.sleep(0)


def test_a_client_that_was_closed_or_never_used_is_dropped_silently(server: RunningServer) -> None:
    Client(server.host, server.port)
    AsyncClient(server.host, server.port)
    client = Client(server.host, server.port)
    assert client.ping() > 0
    client.close()
    del client
    gc.collect()


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("call", ["ping", "hello", "resize", "info", "aclose"])
def test_without_an_asyncio_event_loop_the_error_says_what_is_needed(call: str) -> None:
    arguments = {"resize": [IMAGE], "info": [IMAGE]}.get(call, [])
    options = {"width": 8} if call == "resize" else {}
    # What an event loop of another kind, such as trio's, does with a coroutine first.
    coroutine = getattr(AsyncClient(port=1), call)(*arguments, **options)
    with pytest.raises(RuntimeError, match=r"needs a running asyncio event loop.*trio.*Client in a thread"):
        coroutine.send(None)
