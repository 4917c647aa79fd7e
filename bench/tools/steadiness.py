"""Measure whether a server stays as fast and as small as it is at first.

    python -m bench.tools.steadiness [--check tail] [--rounds 5] [--seconds 5] [--json FILE]

====== ==============================================================================================
idle   throughput beside 10,000 idle connections over that without them, in rounds that take turns
tail   99th percentile of latency over the median
memory anonymous memory of all processes after 20,000 mixed requests over that after 1,000, with no
       request in flight
====== ==============================================================================================

The load is that of ``bench.load``: 8 connections of version 2 in a closed loop. The first two send 640 × 480
JPEGs, of which the gateway's part is largest. Prints the median of the rounds, and the share of the cores
that other processes had: unless that is small, throughput and tail are not those of the server. Exits with 1
if a ratio misses its limit.
"""

import datetime as dt
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.arguments import in_a_folder
from bench.images import image_file
from bench.load.idle import PLACES
from bench.load.plan import Plan, Source
from bench.load.record import Document, Run, to_json
from bench.load.run import run
from bench.load.summary import StartedServer
from bench.measuring.machine import commit, this_machine
from bench.measuring.open_files import allow_open_files
from bench.measuring.server import Server

CONNECTIONS = 8
PROCESSES = 2
IDLE = 10_000
FIRST, LAST = 1_000, 20_000
"""Requests after which memory is compared."""
PAGE = "jpeg-0.3mp.jpg"
MIX = {
    PAGE: 12,
    "jpeg-tiny.jpg": 12,
    "jpeg-1.9mp.jpg": 6,
    "jpeg-12mp.jpg": 1,
    "png-3mp.png": 1,
    "webp-6mp.webp": 1,
    "strip-16mp.tif": 1,
}
"""Images of the mixed load, with their weights."""
_SPARE_FILES = 500


class Check(StrEnum):
    """What is measured; see the table above."""

    IDLE = "idle"
    TAIL = "tail"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Ratio:
    """A measured ratio with its limit, which is the least if ``least`` and the most otherwise."""

    what: str
    value: float
    limit: float
    least: bool = False

    @property
    def kept(self) -> bool:
        """Whether the limit is kept."""
        return self.value >= self.limit if self.least else self.value <= self.limit

    def __str__(self) -> str:
        """The ratio and its limit, in words."""
        bound = "at least" if self.least else "at most"
        return f"{self.what}: {self.value:.3f} ({bound} {self.limit}){'' if self.kept else '  MISSED'}"


def main(
    check: Annotated[list[Check] | None, typer.Option(help="By default all, one after another.")] = None,
    *,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Duration of each phase.")] = 5.0,
    idle: Annotated[int, typer.Option(min=1)] = IDLE,
    workers: Annotated[int, typer.Option(min=1)] = 2,
    json: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Write all runs, as bench.load does.", callback=in_a_folder),
    ] = None,
) -> None:
    """Print the ratios; exits with 1 if one misses its limit."""
    allow_open_files(idle + _SPARE_FILES)
    started = dt.datetime.now(dt.UTC)
    runs: list[Run] = []
    kept = True
    for one in check or list(Check):
        places = str(max(4096, round(idle * PLACES)))
        arguments = ["--workers", str(workers), "--log-level", "error", "--connections", places]
        arguments += ["--idle-timeout", "86400"]
        with Server(*arguments) as server:
            own = StartedServer(server, arguments)

            def measure(images: Mapping[str, int], *, own: StartedServer = own, **further: Any) -> Run:
                idle = further.pop("idle", 0)
                done = run(_plan(own.server, images, **further), processes=PROCESSES, idle=idle, own=own)
                _print(done)
                runs.append(done)
                return done

            ratio = CHECKS[one](measure, rounds, seconds, idle)
        print(f"{one}: {ratio}", flush=True)
        kept &= ratio.kept
    if json is not None:
        document = Document(
            started=started.isoformat(timespec="seconds"),
            command=["python", "-m", "bench.tools.steadiness", *sys.argv[1:]],
            machine=this_machine().as_dict(),
            commit=commit(),
            runs=runs,
        )
        json.write_bytes(to_json(document))
    raise typer.Exit(0 if kept else 1)


Measure = Callable[..., Run]
"""Measures a load of a mix of images; the other arguments are ``idle`` and those of ``Plan``."""


def beside_idle(measure: Measure, rounds: int, seconds: float, idle: int) -> Ratio:
    """Compare the throughput with and without idle connections; which is first alternates.

    Prints the ratio of the CPU time of a reply, too, which other programs on the machine hardly change.
    """
    ratios, cpu = [], []
    measure({PAGE: 1}, duration=1.0)  # warm-up
    for number in range(rounds):
        of = {}
        for beside in (0, idle) if number % 2 else (idle, 0):
            of[beside] = measure({PAGE: 1}, duration=seconds, idle=beside)
        stats = of[idle].idle
        if stats is None or stats.open_at_end < idle:
            raise SystemExit(f"the server closed idle connections: {stats}")
        ratios.append(of[idle].replies_per_second / of[0].replies_per_second)
        cpu.append(_cpu(of[idle]) / _cpu(of[0]))
    print(f"  CPU of a reply beside {idle} idle connections over that without: {statistics.median(cpu):.3f}")
    return Ratio(f"throughput beside {idle} idle connections", statistics.median(ratios), 0.95, least=True)


def tail(measure: Measure, rounds: int, seconds: float, _: int) -> Ratio:
    """Compare the 99th percentile of latency with the median."""
    ratios = []
    for _number in range(rounds):
        latency = measure({PAGE: 1}, duration=seconds, warmup=1.0).latency
        assert latency is not None
        ratios.append(latency.p99_ms / latency.p50_ms)
    return Ratio("p99 over p50", statistics.median(ratios), 2.5)


def memory(measure: Measure, *_: object) -> Ratio:
    """Compare the memory after many requests with that after some."""
    held = [_held(measure(MIX, count=count, timeout=300.0)) for count in (FIRST, LAST - FIRST)]
    print(f"  {held[0] / 1e6:.1f} MB after {FIRST} requests, {held[1] / 1e6:.1f} MB after {LAST}")
    return Ratio(f"memory after {LAST} requests over that after {FIRST}", held[1] / held[0], 1.15)


CHECKS: Mapping[Check, Callable[[Measure, int, float, int], Ratio]] = {
    Check.IDLE: beside_idle,
    Check.TAIL: tail,
    Check.MEMORY: memory,
}


def _cpu(done: Run) -> float:
    assert done.server is not None
    return done.server.cpu_ms


def _held(done: Run) -> int:
    """The memory at the end of a run, when all requests are answered."""
    assert done.server is not None
    return done.server.memory[-1].total_bytes


def _plan(server: Server, images: Mapping[str, int], **further: Any) -> Plan:
    paths: Sequence[tuple[Path, int]] = [(image_file(name), weight) for name, weight in images.items()]
    sources = tuple(Source(path.name, path, path.stat().st_size, weight) for path, weight in paths)
    return Plan(
        host=server.host,
        port=server.port,
        sources=sources,
        protocol=2,
        connections=CONNECTIONS,
        width=200,
        height=150,
        **further,
    )


def _print(done: Run) -> None:
    if done.errors:
        raise SystemExit(f"requests failed: {done.errors}")
    latency, server = done.latency, done.server
    assert latency is not None
    assert server is not None
    beside = "" if done.idle is None else f", {done.idle.open_at_end} idle connections"
    others = (done.cores.others or 0) + done.cores.stolen
    print(
        f"  {done.replies_per_second:.0f} a second, p50 {latency.p50_ms:.1f}, p99 {latency.p99_ms:.1f} ms, "
        f"CPU {server.cpu_ms:.2f} ms, others had {others:.0%} of the cores{beside}",
        flush=True,
    )


if __name__ == "__main__":
    typer.run(main)
