"""Suite: what the two clients of the package add to a bare socket, in CPU time of the calling process.

Rows are as in ``bench.suites.measurement``; the client's CPU time is compared with that of ``bench.wire`` in
turns within the row; ``client_over_socket`` is the ratio.
"""

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Self

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measuring.server import Server
from bench.suites.cases import PAGE, PHONE, Case
from bench.suites.loads import Answers, Connections, ImageRequest
from bench.suites.measurement import Measurement, Scale
from vipsrv import AsyncClient, Client


class Blocking:
    """``vipsrv.Client``, one request after another, as a ``Load``."""

    def __init__(self, port: int, request: ImageRequest) -> None:
        self._client = Client(port=port)
        self._request = request

    def run(self, requests: int) -> Answers:
        """See ``Load``."""
        seconds, result = [], b""
        for _ in range(requests):
            started = time.perf_counter()
            result = self._client.resize(
                self._request.image, width=self._request.width, height=self._request.height
            ).data
            seconds.append(time.perf_counter() - started)
        return Answers(seconds, result)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()


class Asyncio:
    """``vipsrv.AsyncClient`` with ``in_flight`` requests in flight on its one connection, as a ``Load``."""

    def __init__(self, port: int, request: ImageRequest, *, in_flight: int = 8) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(port=port)
        self._request = request
        self._in_flight = in_flight

    def run(self, requests: int) -> Answers:
        """See ``Load``."""
        return self._runner.run(self._all(requests))

    async def _all(self, requests: int) -> Answers:
        room = asyncio.Semaphore(self._in_flight)

        async def one() -> tuple[float, bytes]:
            async with room:
                started = time.perf_counter()
                result = await self._client.resize(
                    self._request.image, width=self._request.width, height=self._request.height
                )
                return time.perf_counter() - started, result.data

        answers = await asyncio.gather(*(one() for _ in range(requests)))
        return Answers([seconds for seconds, _ in answers], answers[-1][1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


@pytest.mark.parametrize(
    ("make", "sent", "at_once"),
    [
        pytest.param(Blocking, PAGE, 1, id="blocking-50KB"),
        pytest.param(Asyncio, PAGE, 8, id="asyncio-50KB"),
        pytest.param(Blocking, PHONE, 1, id="blocking-2.7MB", marks=pytest.mark.full),
        pytest.param(Asyncio, PHONE, 8, id="asyncio-2.7MB", marks=pytest.mark.full),
    ],
)
def test_a_client_adds_little_to_a_bare_socket(
    benchmark: BenchmarkFixture,
    all_cores: Server,
    scale: Scale,
    make: Callable[[int, ImageRequest], Blocking | Asyncio],
    sent: Case,
    at_once: int,
) -> None:
    """Checked options, sources, timeouts and results take a fraction of a millisecond of CPU time."""
    request = ImageRequest(sent.path.read_bytes(), sent.width, sent.height)
    by_socket: list[float] = []
    with make(all_cores.port, request) as load, Connections(all_cores.port, request, count=at_once) as bare:

        def ask_by_socket(requests: int) -> None:
            before = time.process_time()
            bare.run(requests)
            by_socket.append((time.process_time() - before) / requests)

        measurement = Measurement(all_cores, load, None, between=ask_by_socket)
        row = measurement.run(benchmark, sent, scale, at_once=at_once)
    ratios = [
        one.client_cpu / row["requests"] / cpu for one, cpu in zip(measurement.rounds, by_socket, strict=True)
    ]
    row.update(socket_cpu_ms=statistics.median(by_socket) * 1e3, client_over_socket=statistics.median(ratios))
