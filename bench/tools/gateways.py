"""Compare the small requests that one gateway and several carry, with workers that answer at once.

    python -m bench.tools.gateways [--gateways 2] [--seconds 3] [--rounds 7] [--quota 0.02]

Each server has as many workers as gateways, and the load has as many connections for each gateway, each with
one request of version 2 at a time. The servers take turns within one run; the results are medians of the
rounds, and of the ratios within each round.

CPU per request does not depend on what else the machine does. Requests a second do: with less than some four
cores for each gateway, the workers and the load want the same cores. With --quota each gateway may use only
this share of a core (a cgroup, which needs root). Then the gateways are what limits the rate, on two cores as
well, and the ratio of the rates is how it scales.
"""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bench.baselines.instant_worker import environment
from bench.images import image_file
from bench.measuring.processes import children, cpu_seconds
from bench.measuring.server import Server
from bench.tools.threads import run_together
from bench.wire import Connection

IMAGE = "jpeg-0.3mp.jpg"
"""50 KB."""

_CGROUPS = Path("/sys/fs/cgroup")
_PERIOD_US = 50_000

Round = tuple[float, float]
"""CPU milliseconds of the gateways per request, and requests a second."""


def main(
    gateways: Annotated[int, typer.Option(min=2)] = 2,
    seconds: Annotated[float, typer.Option(min=0.1, help="Duration of each round.")] = 3.0,
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    connections: Annotated[int, typer.Option(min=1, help="Connections for each gateway.")] = 16,
    quota: Annotated[
        float | None, typer.Option(min=0.02, help="Share of a core that each gateway may use.")
    ] = None,
) -> None:
    """Print the medians of one gateway and of several, and their ratios.

    Raises ``Refused`` and ``OSError`` if a request fails.
    """
    image = image_file(IMAGE).read_bytes()
    with ExitStack() as stack:
        servers = {}
        for count in (1, gateways):
            arguments = ("--gateways", str(count), "--workers", str(count), "--access-log", "off")
            servers[count] = stack.enter_context(
                Server(*arguments, "--log-level", "warning", environment=environment())
            )
            if quota is not None:
                for pid in gateway_pids(servers[count], count):
                    stack.enter_context(limited(pid, quota))
        measured: dict[int, list[Round]] = {count: [] for count in servers}
        for number in range(rounds + 1):
            for count, server in servers.items():
                value = measure_round(server, image, count, connections * count, seconds)
                if number:  # the first round is a warm-up
                    measured[count].append(value)
    medians = {
        count: tuple(statistics.median(column) for column in zip(*values, strict=True))
        for count, values in measured.items()
    }
    for count, (cpu, rate) in medians.items():
        print(
            f"{count} gateways: {cpu:.3f} ms of CPU per request, {1000 / cpu:.0f} requests per second of "
            f"gateway CPU; {rate:.0f} requests a second"
        )
    pairs = list(zip(measured[1], measured[gateways], strict=True))
    by_cpu = [gateways * one[0] / several[0] for one, several in pairs]
    by_rate = [several[1] / one[1] for one, several in pairs]
    print(
        f"{gateways} gateways carry, times what one does: by CPU {_quartiles(by_cpu)}; "
        f"by rate {_quartiles(by_rate)}"
    )


def _quartiles(values: list[float]) -> str:
    """The median and the quartiles."""
    if len(values) < 2:
        return f"{values[0]:.2f}"
    low, middle, high = statistics.quantiles(values, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def measure_round(server: Server, image: bytes, gateways: int, connections: int, seconds: float) -> Round:
    """Send requests for some seconds over so many connections.

    Raises ``Refused`` and ``OSError`` if a request fails.
    """
    counts = [0] * connections

    def ask(number: int) -> None:
        with Connection(server.port) as connection:
            while time.monotonic() < ends_at:
                connection.resize(image, 200, 150)
                counts[number] += 1

    pids = gateway_pids(server, gateways)
    before = sum(map(cpu_seconds, pids))
    began = time.monotonic()
    ends_at = began + seconds
    run_together([partial(ask, number) for number in range(connections)])
    took = time.monotonic() - began  # until the last reply, because replies after the end are counted, too
    done = sum(counts)
    return (sum(map(cpu_seconds, pids)) - before) / done * 1e3, done / took


def gateway_pids(server: Server, gateways: int) -> list[int]:
    """The processes that clients talk to: the server's own, or those that a supervisor has started."""
    return [server.process.pid] if gateways == 1 else children(server.process.pid)


@contextmanager
def limited(pid: int, share: float) -> Iterator[None]:
    """Let a process use this share of a core, by a cgroup of its own. Raises ``OSError``."""
    version_1 = _CGROUPS / "cpu" / "cgroup.procs"
    base = version_1.parent if version_1.exists() else _CGROUPS
    group = base / f"vipsrv-bench-{os.getpid()}-{pid}"
    group.mkdir()
    try:
        quota = int(share * _PERIOD_US)
        if version_1.exists():
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
            (group / "cpu.shares").write_text("262144")  # the most, so that it gets its share at once
        else:
            (group / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
            (group / "cpu.weight").write_text("10000")
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        (base / "cgroup.procs").write_text(str(pid))
        group.rmdir()


if __name__ == "__main__":
    typer.run(main)
