"""Suite: a server from outside, end to end over loopback TCP. Rows as in ``bench.suites.measurement``."""

import contextlib
import socket
import time
from contextlib import ExitStack
from typing import Self

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measuring.server import Server
from bench.suites.cases import PAGE, PHONE, SCREEN, SPOOLED, Case
from bench.suites.conftest import Loops
from bench.suites.loads import Connections, ImageRequest, Load, Pipelined, Version
from bench.suites.loops import FLOOR, CaseLoop, Turn
from bench.suites.measurement import Measurement, Scale
from bench.wire import Refused
from vipsrv.server.cpus import available_cpus

UPLOADS = {"50KB": PAGE, "0.3MB": SCREEN, "2.7MB": PHONE}
IDLE = 1000
EACH = 16
"""Requests of a connection, at least, in a round whose throughput counts: with fewer, its beginning and end,
where not all workers have something to do, would be most of it."""


class WithoutIdle:
    """The same load with no idle connection, as a ``Yardstick``; after each run they are there again."""

    processes = 1

    def __init__(self, server: Server, load: Load, *, at_once: int) -> None:
        self._server = server
        self._load = load
        self._at_once = at_once
        self._idle = ExitStack()

    def run(self, requests: int) -> Turn:
        """What the server takes without them."""
        self._idle.close()
        self._load.run(self._at_once)  # behind the closing of them all
        began, before = time.perf_counter(), sum(self._server.cpu_seconds())
        self._load.run(requests)
        turn = Turn(sum(self._server.cpu_seconds()) - before, time.perf_counter() - began)
        for _ in range(IDLE):
            self._idle.enter_context(socket.create_connection((self._server.host, self._server.port)))
        self._load.run(self._at_once)  # behind the accepting of them all
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
    """One client after another request: latency, and CPU of gateway and worker, stay by the bare loop's."""
    request = _request(case)
    with Connections(one_worker.port, request) as load:
        loop: CaseLoop | None = None
        floor: CaseLoop | None = None
        if case.file is not None:  # of a corpus, about which nothing is known
            try:
                load.run(1)
            except Refused as reason:
                pytest.skip(f"{case.name} is refused: {reason}")
            with contextlib.suppress(RuntimeError):
                loop, floor = loops(case), loops(case, FLOOR)
        else:
            loop, floor = loops(case), loops(case, FLOOR)
        row = Measurement(one_worker, load, loop, floor=floor).run(benchmark, case, scale)
    if loop is None:
        row.setdefault("missing", {})["bare_cpu_ms"] = "the bare loop cannot read the image"


@pytest.mark.parametrize("version", [2, 1], ids=["persistent", "version-1"])
@pytest.mark.parametrize("upload", UPLOADS)
def test_the_gateway_takes_a_fraction_of_a_millisecond(
    benchmark: BenchmarkFixture, all_cores: Server, loops: Loops, scale: Scale, upload: str, version: Version
) -> None:
    """Eight connections, which last (version 2) or are made for each request (1): the gateway's CPU."""
    case = UPLOADS[upload]
    with Connections(all_cores.port, _request(case), count=8, version=version) as load:
        Measurement(all_cores, load, loops(case, processes=available_cpus())).run(
            benchmark, case, scale, at_once=8
        )


@pytest.mark.parametrize(
    "upload",
    ["0.3MB", pytest.param("50KB", marks=pytest.mark.full), pytest.param("2.7MB", marks=pytest.mark.full)],
)
def test_two_connections_a_worker_keep_all_workers_busy(
    benchmark: BenchmarkFixture, all_cores: Server, loops: Loops, scale: Scale, upload: str
) -> None:
    """At 2 × workers connections the throughput is that of as many bare loops, less what clients take."""
    case, workers = UPLOADS[upload], available_cpus()
    with Connections(all_cores.port, _request(case), count=2 * workers) as load:
        Measurement(all_cores, load, loops(case, processes=workers)).run(
            benchmark, case, scale, at_once=2 * workers, each=EACH
        )


def test_a_thousand_idle_connections_cost_nothing(
    benchmark: BenchmarkFixture, all_cores: Server, scale: Scale
) -> None:
    """1,000 connections with nothing to do beside 2 × workers busy ones: CPU and throughput stay.

    The rounds without them and those with them take turns; ``cpu_over_none``, ``gateway_over_none`` and
    ``throughput_over_none`` are the ratios.
    """
    case, workers = SCREEN, available_cpus()
    with (
        Connections(all_cores.port, _request(case), count=2 * workers) as load,
        WithoutIdle(all_cores, load, at_once=2 * workers) as without,
    ):
        row = Measurement(all_cores, load, without).run(
            benchmark, case, scale, at_once=2 * workers, each=EACH
        )
    row["idle_connections"] = IDLE
    for name in [name for name in row if "bare" in name]:
        row[name.replace("bare", "none")] = row.pop(name)


def test_pipelined_requests_need_one_connection(
    benchmark: BenchmarkFixture, all_cores: Server, loops: Loops, scale: Scale
) -> None:
    """Eight requests under way on one connection keep all workers as busy as eight connections."""
    case = PAGE
    with Pipelined(all_cores.port, _request(case), in_flight=8) as load:
        Measurement(all_cores, load, loops(case, processes=available_cpus())).run(
            benchmark, case, scale, at_once=8
        )


def test_a_large_upload_is_not_held_in_memory(
    benchmark: BenchmarkFixture, one_worker: Server, loops: Loops, scale: Scale
) -> None:
    """48 MB go through a file: both processes stay below what the image has in bytes."""
    with Connections(one_worker.port, _request(SPOOLED)) as load:
        row = Measurement(one_worker, load, loops(SPOOLED)).run(benchmark, SPOOLED, scale)
    assert row["peak_anonymous_mb"] - row["idle_anonymous_mb"] < row["input_bytes"] / 1e6
