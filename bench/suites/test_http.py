"""Suite: requests over HTTP, beside the same requests over the binary protocol of the same server."""

import time
from collections.abc import Iterator
from typing import Self

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.http_wire import HttpConnection, plain
from bench.measuring.server import Server
from bench.suites.cases import PAGE, PHONE, SCREEN
from bench.suites.loads import Answers, Connections, ImageRequest
from bench.suites.loops import Turn
from bench.suites.measurement import Measurement, Scale
from vipsrv.server.http.reader import HttpReader

UPLOADS = {"50KB": PAGE, "0.3MB": SCREEN, "2.7MB": PHONE}
READ = 65_536
"""Bytes that one read of a socket returns."""


@pytest.fixture(scope="module")
def both_protocols() -> Iterator[Server]:
    """A server with one worker that listens for the binary protocol and for HTTP."""
    listeners = ("--listen", "127.0.0.1:0", "--listen", "http://127.0.0.1:0")
    with Server("--workers", "1", "--log-level", "warning", "--idle-timeout", "3600", *listeners) as server:
        yield server


class OverHttp:
    """One client with a connection that lives on."""

    def __init__(self, port: int, request: ImageRequest) -> None:
        self._connection = HttpConnection(port)
        self._data = plain(request.image, request.width, request.height)

    def run(self, requests: int) -> Answers:
        """See ``Load``."""
        seconds = []
        result = b""
        for _ in range(requests):
            began = time.perf_counter()
            result = self._connection.request(self._data)
            seconds.append(time.perf_counter() - began)
        return Answers(seconds, result)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


class OverBinary:
    """The same requests over the binary protocol, as what is compared with."""

    processes = 1

    def __init__(self, server: Server, request: ImageRequest) -> None:
        self._server = server
        self._load = Connections(server.ports[0], request)

    def run(self, requests: int) -> Turn:
        """Measure the server."""
        began, before = time.perf_counter(), sum(self._server.cpu_seconds())
        self._load.run(requests)
        return Turn(sum(self._server.cpu_seconds()) - before, time.perf_counter() - began)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._load.__exit__()


@pytest.mark.parametrize(
    "upload",
    ["0.3MB", pytest.param("50KB", marks=pytest.mark.full), pytest.param("2.7MB", marks=pytest.mark.full)],
)
def test_http_adds_little_to_a_request(
    benchmark: BenchmarkFixture, both_protocols: Server, scale: Scale, upload: str
) -> None:
    """A request over HTTP takes little more CPU time than over the binary protocol.

    Rounds of both take turns; ``cpu_over_binary`` and the like are the ratios.
    """
    case = UPLOADS[upload]
    request = ImageRequest(case.path.read_bytes(), case.width, case.height)
    with (
        OverHttp(both_protocols.ports[1], request) as load,
        OverBinary(both_protocols, request) as binary,
    ):
        row = Measurement(both_protocols, load, binary).run(benchmark, case, scale)
    for name in [name for name in row if "bare" in name]:
        row[name.replace("bare", "binary")] = row.pop(name)


@pytest.mark.parametrize("size", [50_000, 2_700_000], ids=["50KB", "2.7MB"])
def test_a_request_of_http_is_parsed_in_microseconds(benchmark: BenchmarkFixture, size: int) -> None:
    """A head takes some microseconds, and the bytes of a body with a length are only counted."""
    data = memoryview(plain(bytes(size), 800, 600))

    def read() -> int:
        reader = HttpReader()
        events = 0
        for start in range(0, len(data), READ):
            arrived = data[start : start + READ]
            while arrived:
                part = arrived[: reader.wanted_of(arrived)]
                arrived = arrived[len(part) :]
                received = reader.body_received(len(part)) if reader.in_body else reader.receive_data(part)
                events += len(list(received))
        return events

    assert benchmark(read) == 2  # the head, and the end
    stats = benchmark.stats
    assert stats is not None, "benchmarks are switched off"
    benchmark.extra_info.update(messages=1, messages_per_second=1 / stats.stats.median)
