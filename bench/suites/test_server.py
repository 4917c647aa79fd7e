"""Suite: a server end to end over loopback TCP. Rows are as in ``bench.suites.measurement``."""

import contextlib
import socket
import time
from contextlib import ExitStack
from typing import Self

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measuring.server import Server
from bench.suites.cases import PAGE, PHONE, SCREEN, SPOOLED, Case
from bench.suites.loads import Connections, ImageRequest, Load, Pipelined, Version
from bench.suites.loops import WORKERS, CaseLoop, Loops, Turn, floor_of
from bench.suites.measurement import Measurement, Scale
from bench.wire import Refused

UPLOADS = {"50KB": PAGE, "0.3MB": SCREEN, "2.7MB": PHONE}
IDLE = 1000
EACH = 16
"""The least requests a connection in a round whose throughput counts. With fewer, most of the round would be
its beginning and end, when not all workers have work."""


class WithoutIdle:
    """The same load without idle connections, which are opened again after each run."""

    processes = 1

    def __init__(self, server: Server, load: Load, *, at_once: int) -> None:
        self._server = server
        self._load = load
        self._at_once = at_once
        self._idle = ExitStack()

    def run(self, requests: int) -> Turn:
        """Measure the server without idle connections."""
        self._idle.close()
        self._load.run(self._at_once)  # returns when all of them are closed
        began, before = time.perf_counter(), sum(self._server.cpu_seconds())
        self._load.run(requests)
        turn = Turn(sum(self._server.cpu_seconds()) - before, time.perf_counter() - began)
        for _ in range(IDLE):
            self._idle.enter_context(socket.create_connection((self._server.host, self._server.port)))
        self._load.run(self._at_once)  # returns when all of them are accepted
        return turn

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._idle.close()


def _request(case: Case) -> ImageRequest:
    return ImageRequest(case.path.read_bytes(), case.width, case.height)


def test_one_client_waits_for_little_but_the_work(
    benchmark: BenchmarkFixture, one_worker: Server, loops: Loops, scale: Scale, case: Case
) -> None:
    """One client with one request at a time: latency and CPU time stay close to the bare loop's."""
    request = _request(case)
    with Connections(one_worker.port, request) as load:
        loop: CaseLoop | None = None
        floor: CaseLoop | None = None
        if case.file is not None:  # a file of a corpus, which may be unreadable
            try:
                load.run(1)
            except Refused as reason:
                pytest.skip(f"{case.name} is refused: {reason}")
            with contextlib.suppress(RuntimeError):
                loop, floor = loops(case), loops(case, floor_of(case))
        else:
            loop, floor = loops(case), loops(case, floor_of(case))
        row = Measurement(one_worker, load, loop, floor=floor).run(benchmark, case, scale)
    if loop is None:
        row.setdefault("missing", {})["bare_cpu_ms"] = "the bare loop cannot read the image"


@pytest.mark.parametrize("version", [2, 1], ids=["persistent", "version-1"])
@pytest.mark.parametrize("upload", UPLOADS)
def test_the_gateway_takes_a_fraction_of_a_millisecond(
    benchmark: BenchmarkFixture, all_cores: Server, loops: Loops, scale: Scale, upload: str, version: Version
) -> None:
    """The gateway's CPU time at eight connections, persistent (version 2) or one a request (1)."""
    case = UPLOADS[upload]
    with Connections(all_cores.port, _request(case), count=8, version=version) as load:
        Measurement(all_cores, load, loops(case, processes=WORKERS)).run(benchmark, case, scale, at_once=8)


@pytest.mark.parametrize(
    "upload",
    ["0.3MB", pytest.param("50KB", marks=pytest.mark.full), pytest.param("2.7MB", marks=pytest.mark.full)],
)
def test_two_connections_a_worker_keep_all_workers_busy(
    benchmark: BenchmarkFixture, all_cores: Server, loops: Loops, scale: Scale, upload: str
) -> None:
    """At 2 × workers connections the throughput is that of a bare loop a worker, less the clients' time."""
    case = UPLOADS[upload]
    with Connections(all_cores.port, _request(case), count=2 * WORKERS) as load:
        Measurement(all_cores, load, loops(case, processes=WORKERS)).run(
            benchmark, case, scale, at_once=2 * WORKERS, each=EACH
        )


def test_a_thousand_idle_connections_cost_nothing(
    benchmark: BenchmarkFixture, all_cores: Server, scale: Scale
) -> None:
    """1,000 idle connections beside 2 × workers busy ones change neither CPU time nor throughput.

    Rounds with and without them take turns; ``cpu_over_none``, ``gateway_over_none`` and
    ``throughput_over_none`` are the ratios.
    """
    case = SCREEN
    with (
        Connections(all_cores.port, _request(case), count=2 * WORKERS) as load,
        WithoutIdle(all_cores, load, at_once=2 * WORKERS) as without,
    ):
        row = Measurement(all_cores, load, without).run(
            benchmark, case, scale, at_once=2 * WORKERS, each=EACH
        )
    row["idle_connections"] = IDLE
    for name in [name for name in row if "bare" in name]:
        row[name.replace("bare", "none")] = row.pop(name)


def test_pipelined_requests_need_one_connection(
    benchmark: BenchmarkFixture, all_cores: Server, loops: Loops, scale: Scale
) -> None:
    """Eight requests in flight on one connection keep all workers as busy as eight connections."""
    case = PAGE
    with Pipelined(all_cores.port, _request(case), in_flight=8) as load:
        Measurement(all_cores, load, loops(case, processes=WORKERS)).run(benchmark, case, scale, at_once=8)


def test_a_large_upload_is_not_held_in_memory(
    benchmark: BenchmarkFixture, one_worker: Server, loops: Loops, scale: Scale
) -> None:
    """An upload of 48 MB goes through a file: gateway and worker together grow by less than its size."""
    with Connections(one_worker.port, _request(SPOOLED)) as load:
        row = Measurement(one_worker, load, loops(SPOOLED)).run(benchmark, SPOOLED, scale)
    assert row["peak_anonymous_mb"] - row["idle_anonymous_mb"] < row["input_bytes"] / 1e6
