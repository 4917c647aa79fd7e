"""Suite: what a connection costs: to open and close it, to keep it idle, and to write to it in pieces.

Each row's ``extra_info`` has medians of the rounds:

======================== ==================================================================================
``open_close_cpu_us``    the gateway's CPU time to accept a connection and close it after its client has
``bare_cpu_us``          the same of a gateway that only passes bytes on (``bench.baselines.bare_gateway``)
``open_close_over_bare`` their ratio
``idle_kb``              growth of the gateway's anonymous memory for an idle connection, in 10**3 bytes
``split_ms``             time of an INFO whose header and image are written separately, without TCP_NODELAY
``joined_ms``            the same written at once; ``split_over_joined`` is their ratio
======================== ==================================================================================
"""

import socket
import statistics
import time
from contextlib import ExitStack

from pytest_benchmark.fixture import BenchmarkFixture

from bench.measuring.processes import anonymous_bytes, cpu_nanoseconds
from bench.measuring.server import Server
from bench.suites.cases import PAGE
from bench.suites.measurement import Scale
from vipsrv.protocol import HEADER, OK_STATUS, Header, Kind, pack_message

OPENED = 100
"""Connections that are opened and closed in a round, one after another."""

IDLE = 1000

ASKED = 20
"""Requests of each kind in a round."""


def _open_and_close(server: Server, count: int) -> float:
    """Return the gateway's CPU microseconds for each of ``count`` connections."""
    pid = server.process.pid
    before = cpu_nanoseconds(pid)
    for _ in range(count):
        with socket.create_connection((server.host, server.port)) as client:
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""  # the server has closed its side
    return (cpu_nanoseconds(pid) - before) / count / 1e3


def test_a_connection_costs_little_more_than_the_event_loop(
    benchmark: BenchmarkFixture, one_worker: Server, scale: Scale
) -> None:
    """Opening and closing a connection costs a few times what the bare event loop takes for it."""
    own: list[float] = []
    bare: list[float] = []
    with Server("1", "200", "150", module="bench.baselines.bare_gateway") as bare_gateway:
        _open_and_close(one_worker, OPENED)
        _open_and_close(bare_gateway, OPENED)

        def rounds() -> None:
            bare.append(_open_and_close(bare_gateway, OPENED))
            own.append(_open_and_close(one_worker, OPENED))

        benchmark.pedantic(rounds, rounds=scale.rounds)
    benchmark.extra_info.update(
        open_close_cpu_us=statistics.median(own),
        bare_cpu_us=statistics.median(bare),
        open_close_over_bare=statistics.median(a / b for a, b in zip(own, bare, strict=True)),
    )


def test_an_idle_connection_takes_some_kilobytes(benchmark: BenchmarkFixture, one_worker: Server) -> None:
    """1,000 idle connections take some kilobytes each of the gateway's memory."""
    pid = one_worker.process.pid
    _open_and_close(one_worker, 1)
    before = anonymous_bytes(pid)
    with ExitStack() as idle:

        def open_all() -> None:
            for _ in range(IDLE):
                idle.enter_context(socket.create_connection((one_worker.host, one_worker.port)))
            _open_and_close(one_worker, 1)  # accepted after all of them

        benchmark.pedantic(open_all, rounds=1)
        after = anonymous_bytes(pid)
    benchmark.extra_info.update(idle_kb=(after - before) / IDLE / 1e3)


def _ask(client: socket.socket, *pieces: bytes) -> float:
    """Send a request piece by piece; return the milliseconds until its reply."""
    began = time.perf_counter()
    for piece in pieces:
        client.sendall(piece)
    header = Header.unpack(client.recv(HEADER.size, socket.MSG_WAITALL))
    client.recv(header.meta_size, socket.MSG_WAITALL)
    assert header.status == OK_STATUS
    return (time.perf_counter() - began) * 1e3


def test_a_client_may_write_header_and_image_separately(
    benchmark: BenchmarkFixture, one_worker: Server, scale: Scale
) -> None:
    """With Nagle's algorithm, the image waits for the acknowledgement of the header, which comes at once."""
    image = PAGE.path.read_bytes()
    head = pack_message(Kind.INFO, 1, body_size=len(image))
    split: list[float] = []
    joined: list[float] = []
    with socket.create_connection((one_worker.host, one_worker.port)) as client:

        def rounds() -> None:
            split.extend(_ask(client, head, image) for _ in range(ASKED))
            joined.extend(_ask(client, head + image) for _ in range(ASKED))

        rounds()
        benchmark.pedantic(rounds, rounds=scale.rounds)
    benchmark.extra_info.update(
        split_ms=statistics.median(split),
        joined_ms=statistics.median(joined),
        split_over_joined=statistics.median(split) / statistics.median(joined),
    )
