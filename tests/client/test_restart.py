"""A server that is restarted, or killed and started again, while clients are busy: no call fails."""

import asyncio
import signal
import threading
from collections.abc import Callable

import pytest

from tests.client.fake_server import SECONDS
from tests.support.images import jpeg
from tests.support.running_server import RunningServer, wait_until
from tests.support.unused_port import unused_port
from vipsrv.client import AsyncClient, Client
from vipsrv.errors import VipsrvError

IMAGE = jpeg(160, 120)
CALLS_AFTER = 40
"""Calls that each client makes with the new server."""


class Load:
    """Calls of one client, several at a time. ``failures`` are the errors that they raised."""

    def __init__(self) -> None:
        self.done = 0
        self.again = 0
        self.failures: list[VipsrvError] = []
        self.stopping = threading.Event()

    def count(self, attempts: int) -> None:
        self.done += 1
        self.again += attempts > 1

    def blocking(self, port: int) -> None:
        def call() -> None:
            while not self.stopping.is_set():
                try:
                    self.count(client.resize(IMAGE, width=40).attempts)
                except VipsrvError as error:
                    self.failures.append(error)

        with Client(port=port) as client:
            threads = [threading.Thread(target=call) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def asyncio(self, port: int) -> None:
        async def call(client: AsyncClient) -> None:
            while not self.stopping.is_set():
                try:
                    self.count((await client.resize(IMAGE, width=40)).attempts)
                except VipsrvError as error:
                    self.failures.append(error)

        async def load() -> None:
            async with AsyncClient(port=port) as client:
                await asyncio.gather(*(call(client) for _ in range(24)))

        asyncio.run(load())


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_no_call_fails_while_the_server_is_restarted(end: signal.Signals) -> None:
    port = unused_port()
    arguments = ("--port", str(port), "--workers", "1")
    loads = [Load(), Load()]
    runs: list[Callable[[int], None]] = [loads[0].blocking, loads[1].asyncio]
    threads = [threading.Thread(target=run, args=[port]) for run in runs]
    with RunningServer(*arguments) as server:
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: all(load.done for load in loads), "the first results")
            server.process.send_signal(end)
            server.process.wait(SECONDS)
            with RunningServer(*arguments):
                before = [load.done for load in loads]
                wait_until(
                    lambda: all(
                        load.done >= one + CALLS_AFTER for load, one in zip(loads, before, strict=True)
                    ),
                    "results of the new server",
                )
                for load in loads:
                    load.stopping.set()
                for thread in threads:
                    thread.join(SECONDS)
        finally:
            for load in loads:
                load.stopping.set()
    assert [load.failures for load in loads] == [[], []]
    assert all(load.again for load in loads), "the server was not restarted under load"
