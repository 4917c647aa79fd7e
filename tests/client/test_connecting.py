"""Several calls that need a connection at the same time, and a client closed while it connects."""

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.client.conftest import Serve
from tests.client.fake_server import SECONDS, every, one, silent
from vipsrv.client import AsyncClient, Client, Timeout, Version1Client
from vipsrv.client.asyncio_connection import AsyncConnection
from vipsrv.client.blocking_connection import BlockingConnection
from vipsrv.client.core import ClientCore, PendingRequest
from vipsrv.errors import ConnectFailed

CALLS = 4


class Gate:
    """Replaces ``BlockingConnection``: counts calls, and waits until opened to connect or raise."""

    def __init__(self, fault: BaseException | None = None) -> None:
        self.asked = threading.Semaphore(0)
        self.times = 0
        self.opened = threading.Event()
        self._fault = fault

    def __call__(self, *arguments: Any, **options: Any) -> BlockingConnection:
        self.times += 1
        self.asked.release()
        assert self.opened.wait(SECONDS)
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault
        return BlockingConnection(*arguments, **options)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """A semaphore that each thread releases when it starts to wait for the attempt of another."""
    waits = threading.Semaphore(0)

    class Announced(Future[Any]):
        def result(self, timeout: float | None = None) -> Any:
            waits.release()
            return super().result(timeout)

    monkeypatch.setattr("vipsrv.client.blocking_pool.Future", Announced)
    return waits


def test_threads_share_one_attempt_and_its_error(
    monkeypatch: pytest.MonkeyPatch, shared: threading.Semaphore
) -> None:
    gate = Gate(ConnectFailed("no connection"))
    monkeypatch.setattr("vipsrv.client.blocking_pool.BlockingConnection", gate)
    with ThreadPoolExecutor(CALLS) as threads, Client(port=9) as client:
        calls = [threads.submit(client.ping) for _ in range(CALLS)]
        for _ in range(CALLS - 1):
            assert shared.acquire(timeout=SECONDS)
        gate.opened.set()
        errors = [call.exception(SECONDS) for call in calls]
    assert [str(error) for error in errors] == ["no connection"] * CALLS
    assert len({id(error) for error in errors}) == CALLS
    assert gate.times == 1


def test_threads_share_one_connection(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, shared: threading.Semaphore
) -> None:
    gate = Gate()
    monkeypatch.setattr("vipsrv.client.blocking_pool.BlockingConnection", gate)
    server = serve(every)
    with ThreadPoolExecutor(CALLS) as threads, Client(port=server.port) as client:
        calls = [threads.submit(client.ping) for _ in range(CALLS)]
        for _ in range(CALLS - 1):
            assert shared.acquire(timeout=SECONDS)
        gate.opened.set()
        assert all(call.result(SECONDS) > 0 for call in calls)
    assert server.connections == gate.times == 1


def test_an_interrupted_attempt_is_repeated_by_another_thread(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, shared: threading.Semaphore
) -> None:
    gate = Gate(KeyboardInterrupt())
    monkeypatch.setattr("vipsrv.client.blocking_pool.BlockingConnection", gate)
    server = serve(every)
    with ThreadPoolExecutor(2) as threads, Client(port=server.port) as client:
        interrupted = threads.submit(client.ping)
        assert gate.asked.acquire(timeout=SECONDS)
        other = threads.submit(client.ping)
        assert shared.acquire(timeout=SECONDS)
        gate.opened.set()
        assert isinstance(interrupted.exception(SECONDS), KeyboardInterrupt)
        assert other.result(SECONDS) > 0


def test_a_connection_is_not_left_behind_by_an_interrupt_that_comes_when_it_is_made(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect_and_interrupt(*arguments: Any, **options: Any) -> BlockingConnection:
        monkeypatch.undo()
        BlockingConnection(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr("vipsrv.client.blocking_pool.BlockingConnection", connect_and_interrupt)
    server = serve(every)
    with Client(port=server.port) as client:
        with pytest.raises(KeyboardInterrupt):
            client.ping()
        assert client.ping() > 0
    assert server.connections == 1


def test_after_an_interrupt_within_its_turn_a_thread_does_not_keep_the_turn(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = BlockingConnection._begin

    def begin_and_interrupt(*arguments: Any) -> PendingRequest | None:
        monkeypatch.undo()
        begin(*arguments)
        raise KeyboardInterrupt

    server = serve(every, every)
    with Client(port=server.port, timeout=Timeout(call=SECONDS)) as client:
        client.ping()
        monkeypatch.setattr(BlockingConnection, "_begin", begin_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.resize(b"image", width=8, height=6)
        assert client.resize(b"image", width=8, height=6).attempts == 1


def test_after_an_interrupt_within_a_question_a_thread_does_not_keep_the_turn(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = ClientCore.ask

    def plan_an_interrupt(core: ClientCore) -> bytes:
        monkeypatch.undo()
        monkeypatch.setattr(BlockingConnection, "_send_cancels", interrupt)
        return ask(core)

    def interrupt(_connection: BlockingConnection) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    server = serve(silent, every)
    monkeypatch.setattr(ClientCore, "ask", plan_an_interrupt)
    with Client(port=server.port, timeout=Timeout(ping=SECONDS, call=SECONDS)) as client:
        with pytest.raises(KeyboardInterrupt):
            client.resize(b"image", width=8, height=6)
        assert client.resize(b"image", width=8, height=6).attempts == 1


@pytest.mark.parametrize("kind", [Client, Version1Client])
def test_close_does_not_wait_for_an_attempt_to_connect(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, kind: type[Client | Version1Client]
) -> None:
    gate = Gate()
    monkeypatch.setattr("vipsrv.client.blocking_pool.BlockingConnection", gate)
    server = serve(lambda _: None)
    client = kind(port=server.port)
    with ThreadPoolExecutor(2) as threads:
        call = threads.submit(lambda: client.resize(b"image", width=8, height=6))
        assert gate.asked.acquire(timeout=SECONDS)
        try:
            threads.submit(client.close).result(SECONDS)
        finally:
            gate.opened.set()
        with pytest.raises(RuntimeError, match="was closed while it connected"):
            call.result(SECONDS)


def test_over_version_1_each_thread_connects_for_itself(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    monkeypatch.setattr("vipsrv.client.blocking_pool.BlockingConnection", gate)

    def answers(peer: Any) -> None:
        peer.read_request()
        peer.reply_v1()

    server = serve(answers, answers)
    with ThreadPoolExecutor(2) as threads, Version1Client(port=server.port) as client:
        calls = [threads.submit(lambda: client.resize(b"image", width=8, height=6)) for _ in range(2)]
        try:
            for _ in calls:
                assert gate.asked.acquire(timeout=SECONDS)  # both at the same time
        finally:
            gate.opened.set()
        for call in calls:
            assert call.result(SECONDS).data == b"result"


async def test_tasks_share_one_attempt_and_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = 0
    opened = asyncio.Event()

    async def connect(*_: object, **__: object) -> AsyncConnection:
        nonlocal attempts
        attempts += 1
        await opened.wait()
        raise ConnectFailed("no connection")

    monkeypatch.setattr(AsyncConnection, "connect", connect)
    async with AsyncClient(port=9) as client:
        calls = [asyncio.create_task(client.ping()) for _ in range(CALLS)]
        for _ in range(3):
            await asyncio.sleep(0)
        opened.set()
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [str(error) for error in errors] == ["no connection"] * CALLS
    assert attempts == 1


async def test_a_cancelled_task_leaves_the_attempt_to_the_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(one)
    connect_for_real = AsyncConnection.connect
    opened = asyncio.Event()

    async def connect(*arguments: Any, **options: Any) -> AsyncConnection:
        await opened.wait()
        return await connect_for_real(*arguments, **options)

    monkeypatch.setattr(AsyncConnection, "connect", connect)
    async with AsyncClient(port=server.port) as client:
        first, second = (asyncio.create_task(client.ping()) for _ in range(2))
        for _ in range(3):
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        opened.set()
        assert await second > 0
        assert first.cancelled()
    assert server.connections == 1
