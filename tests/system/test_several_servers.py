"""Three real servers of which one is killed, one stopped and all restarted under load: no call fails.

The client reaches them by its own list, and through HAProxy.
"""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.haproxy import RunningHaproxy, needs_haproxy
from tests.support.images import jpeg
from tests.support.running_server import RunningServer, wait_until, worker_pids
from tests.support.unused_port import unused_port
from vipsrv.client import Client

IMAGE = jpeg()
CALLERS = 4


class Cluster:
    """Three servers with one worker each, at addresses that they keep.

    HAProxy reaches them by TCP and has to introduce its clients; others use their unix sockets.
    """

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self.ports = [(unused_port(), unused_port()) for _ in range(3)]
        self.sockets = [f"unix:{folder}/{number}" for number in range(3)]
        with ThreadPoolExecutor(3) as threads:
            self._servers = list(threads.map(self._start, range(3)))

    def send(self, number: int, what: signal.Signals) -> None:
        """Send a signal to a server and its workers."""
        server = self._servers[number].pid
        for pid in (server, *worker_pids(server)):
            os.kill(pid, what)

    def restart(self, number: int) -> None:
        """End a server as an operator does, and start it again."""
        self._servers[number].stop()
        self._servers[number] = self._start(number)

    def _start(self, number: int) -> RunningServer:
        binary, http = self.ports[number]
        addresses = f"127.0.0.1:{binary}", f"http://127.0.0.1:{http}", self.sockets[number]
        listen = (word for address in addresses for word in ("--listen", address))
        return self._stack.enter_context(
            RunningServer(*listen, "--workers", "1", "--trusted-proxies", "127.0.0.1/32")
        )


class Load:
    """Threads that resize an image again and again with one client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._over = threading.Event()
        self._done = [0] * CALLERS

    def run(self, caller: int) -> None:
        while not self._over.is_set():
            result = self._client.resize(IMAGE, width=20, height=10)
            assert (result.width, result.height, result.data[:2]) == (20, 10, b"\xff\xd8")
            self._done[caller] += 1

    def wait_for_calls(self) -> None:
        """Wait until each caller has made at least five more."""
        before = list(self._done)
        wait_until(
            lambda: all(now >= then + 5 for now, then in zip(self._done, before, strict=True)),
            f"calls, after {before}: {self._done}",
        )

    def end(self) -> None:
        self._over.set()


@contextmanager
def load(addresses: list[str]) -> Iterator[Load]:
    """Run a load; a call that has failed fails the test at the end."""
    with Client(servers=addresses, connections=2) as client, ThreadPoolExecutor(CALLERS) as threads:
        running = Load(client)
        callers = [threads.submit(running.run, caller) for caller in range(CALLERS)]
        try:
            yield running
        finally:
            running.end()
        for caller in callers:
            caller.result()


@needs_haproxy
def test_no_call_fails_whatever_happens_to_two_of_three_servers(tmp_path: Path) -> None:
    with ExitStack() as stack:
        cluster = Cluster(stack, tmp_path)
        haproxy = stack.enter_context(RunningHaproxy(cluster.ports))
        with load(cluster.sockets) as own_list, load([f"127.0.0.1:{haproxy.port}"]) as behind:

            def wait_for_calls() -> None:
                own_list.wait_for_calls()
                behind.wait_for_calls()

            wait_for_calls()
            for number in range(3):
                cluster.restart(number)
                wait_for_calls()
            haproxy.wait_for_states("UP", "UP", "UP")
            cluster.send(0, signal.SIGKILL)
            wait_for_calls()
            cluster.send(1, signal.SIGSTOP)
            try:
                wait_for_calls()
            finally:
                cluster.send(1, signal.SIGCONT)
            wait_for_calls()
