"""Suite: what the start of a worker and of a server costs, over that of a bare Python that imports pyvips.

CPU time from the start of the process until it is ready; the processes take turns. Each row's ``extra_info``
has medians of the rounds: ``start_cpu_ms``, ``bare_cpu_ms`` and their ratio ``start_over_bare``.
"""

import socket
import statistics
import subprocess
import sys
from collections.abc import Callable

from pytest_benchmark.fixture import BenchmarkFixture

from bench.measuring.processes import cpu_nanoseconds
from bench.measuring.server import Server
from vipsrv.worker_config import WorkerConfig
from vipsrv.workers.channel import READY_SIZE
from vipsrv.workers.launch import launch

ROUNDS = 5


def _bare() -> float:
    """Return the CPU milliseconds of a Python that imports pyvips, which loads libvips."""
    program = "import pyvips; print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        spent = cpu_nanoseconds(process.pid)
        process.communicate(b"\n")
    return spent / 1e6


def _worker() -> float:
    """Return the CPU milliseconds of a worker until its handshake."""
    launched = launch(WorkerConfig())
    with launched.channel as channel, launched.process as process:
        channel.setblocking(True)
        ready = channel.recv(READY_SIZE, socket.MSG_WAITALL)
        assert len(ready) == READY_SIZE, "the worker did not start"
        spent = cpu_nanoseconds(process.pid)
        channel.close()  # at which the worker exits
    if launched.shared is not None:
        launched.shared.close()
    return spent / 1e6


def _gateway() -> float:
    """Return the CPU milliseconds of the gateway of a server, until it accepts requests."""
    with Server("--workers", "1", "--log-level", "warning") as server:
        return cpu_nanoseconds(server.process.pid) / 1e6


def _measure(benchmark: BenchmarkFixture, start: Callable[[], float]) -> None:
    own: list[float] = []
    bare: list[float] = []

    def once() -> None:
        bare.append(_bare())
        own.append(start())

    benchmark.pedantic(once, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info.update(
        start_cpu_ms=statistics.median(own[1:]),
        bare_cpu_ms=statistics.median(bare[1:]),
        start_over_bare=statistics.median(a / b for a, b in zip(own[1:], bare[1:], strict=True)),
    )


def test_a_worker_is_ready_soon(benchmark: BenchmarkFixture) -> None:
    """A worker imports the pipeline, tries all formats and confines itself."""
    _measure(benchmark, _worker)


def test_a_server_is_ready_soon(benchmark: BenchmarkFixture) -> None:
    """The gateway imports its modules, reads its settings and waits for a worker."""
    _measure(benchmark, _gateway)
