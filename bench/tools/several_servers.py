"""Kill, stop and restart some of three servers under load: does a call fail, and how long do calls take?

    python -m bench.tools.several_servers [--way list] [--way haproxy] [--client asyncio] [--client blocking]

Three servers with one worker each are reached by the client's own list, or through HAProxy with the
configuration of docker/haproxy/. Callers send one JPEG after another without a pause. Three parts, each with
new servers:

    steady     nothing happens
    outage     one server is killed by SIGKILL, and a second later another is stopped by SIGSTOP
    rolling    one after another is ended by SIGTERM and started again

The figures of a part are those of all calls that ended from the first event on.
"""

import asyncio
import itertools
import os
import shutil
import signal
import socket
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.images import image_file
from bench.measuring.server import Server
from vipsrv import AsyncClient, Client, VipsrvError
from vipsrv.client import ResizeResult

HAPROXY_CONFIGURATION = Path(__file__).parents[2] / "docker" / "haproxy" / "haproxy.cfg"
IMAGE = "jpeg-0.3mp.jpg"
WIDTH, HEIGHT = 320, 240
LONGEST_P99 = 3.0
"""Seconds: the most that the 99th percentile of the calls during an outage may be."""
SETTLE = 2.0
"""Seconds of load before the first event."""


class Way(StrEnum):
    """How the client reaches the servers."""

    LIST = "list"
    HAPROXY = "haproxy"


class Kind(StrEnum):
    """Which client makes the calls."""

    ASYNCIO = "asyncio"
    BLOCKING = "blocking"


class Part(StrEnum):
    """What happens to the servers."""

    STEADY = "steady"
    OUTAGE = "outage"
    ROLLING = "rolling"


@dataclass
class Tally:
    """The calls of one part: when each ended, how long it took, and what failed."""

    calls: list[tuple[float, float, int]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def note(self, started: float, result: ResizeResult | VipsrvError) -> None:
        """Note the outcome of a call that has just ended."""
        now = time.monotonic()
        if isinstance(result, VipsrvError):
            self.failures[f"{type(result).__name__}: {result}"] += 1
        elif (result.width, result.height) != (WIDTH, HEIGHT) or result.data[:2] != b"\xff\xd8":
            self.failures["a wrong result"] += 1
        else:
            self.calls.append((now, now - started, result.attempts))

    def figures(self, begin: float) -> "Figures":
        """Return the figures of the calls that ended after a time."""
        calls = [one for one in self.calls if one[0] >= begin]
        times = sorted(seconds for _, seconds, _ in calls)
        return Figures(
            calls=len(calls),
            failed=self.failures.total(),
            rate=len(calls) / (max(at for at, _, _ in calls) - begin),
            p50=statistics.median(times),
            p99=times[min(len(times) - 1, int(len(times) * 0.99))],
            longest=times[-1],
            again=sum(attempts > 1 for _, _, attempts in calls),
        )


@dataclass(frozen=True)
class Figures:
    """The figures of one part. ``again`` counts the calls that took several attempts."""

    calls: int
    failed: int
    rate: float
    p50: float
    p99: float
    longest: float
    again: int


class Cluster:
    """Three servers at ports that stay the same, with HAProxy in front of them if that is the way."""

    def __init__(self, stack: ExitStack, way: Way) -> None:
        self._stack = stack
        self.ports = _free_ports(9)
        arguments = ("--trusted-proxies", "127.0.0.1/32", "--drain-delay", "3") if way is Way.HAPROXY else ()
        self._arguments = ("--workers", "1", "--log-level", "error", "--ops-listen", "off", *arguments)
        self.servers = [self._start(number) for number in range(3)]
        if way is Way.HAPROXY:
            stack.enter_context(_haproxy(self.ports))
            self.addresses = [f"127.0.0.1:{self.ports[6]}"]
        else:
            self.addresses = [f"127.0.0.1:{port}" for port in self.ports[:3]]

    def kill(self, number: int) -> None:
        """End a server and its workers at once."""
        _send_all(self.servers[number].pids, signal.SIGKILL)
        self.servers[number].process.wait()

    def stop(self, number: int) -> None:
        """Stop a server and its workers; they go on before the end of the program."""
        pids = self.servers[number].pids
        self._stack.callback(_send_all, pids, signal.SIGCONT)
        _send_all(pids, signal.SIGSTOP)

    def restart(self, number: int) -> None:
        """End a server as an operator does, and start it again."""
        server = self.servers[number]
        server.process.send_signal(signal.SIGTERM)
        server.process.wait()
        self.servers[number] = self._start(number)

    def _start(self, number: int) -> Server:
        return self._stack.enter_context(Server("--port", str(self.ports[number]), *self._arguments))


def _send_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


Event = Callable[[Cluster], None]


def _nothing(_cluster: Cluster) -> None:
    time.sleep(5)


def _outage(cluster: Cluster) -> None:
    cluster.kill(0)
    time.sleep(1)
    cluster.stop(1)
    time.sleep(9)


def _rolling(cluster: Cluster) -> None:
    for number in range(3):
        cluster.restart(number)
        time.sleep(1)


EVENTS: dict[Part, Event] = {Part.STEADY: _nothing, Part.OUTAGE: _outage, Part.ROLLING: _rolling}


def main(
    way: Annotated[list[Way] | None, typer.Option(help="How to reach the servers.  [default: both]")] = None,
    client: Annotated[list[Kind] | None, typer.Option(help="Who makes the calls.  [default: both]")] = None,
    part: Annotated[list[Part] | None, typer.Option(help="What happens.  [default: all]")] = None,
    callers: Annotated[int, typer.Option(min=1, help="Calls at the same time.")] = 16,
    connections: Annotated[int, typer.Option(min=1, help="Connections to each address.")] = 4,
) -> None:
    """Print the figures of each part; exit with 1 if a call failed or the calls took too long."""
    bad = False
    print(
        f"{'way':8} {'client':9} {'part':8} {'calls':>6} {'failed':>6} {'1/s':>6} {'p50':>7} {'p99':>7}",
        end="",
    )
    print(f" {'max':>7} {'again':>6}")
    for where, kind, name in itertools.product(way or Way, client or Kind, part or Part):
        tally, begin = _run(where, kind, EVENTS[name], callers, connections)
        one = tally.figures(begin)
        print(f"{where:8} {kind:9} {name:8} {one.calls:6} {one.failed:6} {one.rate:6.0f}", end="")
        print(f" {one.p50:7.3f} {one.p99:7.3f} {one.longest:7.3f} {one.again:6}", flush=True)
        for failure, times in tally.failures.most_common(5):
            print(f"    {times} x {failure}")
        bad = bad or one.failed > 0 or one.p99 >= LONGEST_P99
    if bad:
        raise typer.Exit(1)


def _run(way: Way, kind: Kind, event: Event, callers: int, connections: int) -> tuple[Tally, float]:
    """Return the calls, and when the event began."""
    tally, over = Tally(), threading.Event()
    load = _load_blocking if kind is Kind.BLOCKING else _load_asyncio
    with ExitStack() as stack:
        cluster = Cluster(stack, way)
        with ThreadPoolExecutor(1) as thread:
            loading = thread.submit(load, cluster.addresses, callers, connections, tally, over)
            try:
                time.sleep(SETTLE)
                begin = time.monotonic()
                event(cluster)
            finally:
                over.set()
            loading.result()
    return tally, begin


def _load_blocking(
    addresses: list[str], callers: int, connections: int, tally: Tally, over: threading.Event
) -> None:
    image = image_file(IMAGE).read_bytes()
    with Client(servers=addresses, connections=connections) as client, ThreadPoolExecutor(callers) as threads:

        def call_on() -> None:
            while not over.is_set():
                started = time.monotonic()
                try:
                    result: ResizeResult | VipsrvError = client.resize(image, width=WIDTH, height=HEIGHT)
                except VipsrvError as error:
                    result = error
                tally.note(started, result)

        for one in [threads.submit(call_on) for _ in range(callers)]:
            one.result()


def _load_asyncio(
    addresses: list[str], callers: int, connections: int, tally: Tally, over: threading.Event
) -> None:
    image = image_file(IMAGE).read_bytes()

    async def call_on(client: AsyncClient) -> None:
        while not over.is_set():
            started = time.monotonic()
            try:
                result: ResizeResult | VipsrvError = await client.resize(image, width=WIDTH, height=HEIGHT)
            except VipsrvError as error:
                result = error
            tally.note(started, result)

    async def load() -> None:
        async with AsyncClient(servers=addresses, connections=connections) as client:
            await asyncio.gather(*(call_on(client) for _ in range(callers)))

    asyncio.run(load())


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def _haproxy(ports: list[int]) -> Iterator[None]:
    """HAProxy in front of the first three ports, at the seventh."""
    program = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise SystemExit("haproxy is not installed")
    variables = {f"SERVER{number + 1}": f"127.0.0.1:{ports[number]}" for number in range(3)}
    variables |= {f"HTTP{number + 1}": f"127.0.0.1:{ports[3 + number]}" for number in range(3)}
    binds = {"IMAGES_BIND": ports[6], "HTTP_BIND": ports[7], "STATS_BIND": ports[8]}
    variables |= {name: f"127.0.0.1:{port}" for name, port in binds.items()}
    process = subprocess.Popen(
        [program, "-db", "-f", HAPROXY_CONFIGURATION],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _listens(ports[6]):
            if process.poll() is not None:
                raise SystemExit(f"haproxy ended at once; try: {program} -c -f {HAPROXY_CONFIGURATION}")
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return False
    return True


if __name__ == "__main__":
    typer.run(main)
