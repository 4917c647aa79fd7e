"""Compare what a call costs in this tree's clients with those of another checkout.

    python -m bench.tools.client_cost OLD_CHECKOUT [--rounds 15] [--calls 1500] [--image jpeg-0.3mp.jpg]
    python -m bench.tools.client_cost OLD_CHECKOUT --instructions [--info]

One server with one worker serves both. Each round starts a process with the old client and one with the new
one, in alternating order, for the blocking client (one call at a time) and for the asyncio client (16 at a
time). A process makes its calls after a tenth as many that are not counted. CPU is user and system time of
that process in µs a call, and the time is that of a call from one end to the next; the ratios are medians of
those of the rounds. With --info a call is an INFO, which costs the server little, so that more of the time is
the client's.

With --instructions valgrind counts the processor's instructions of a call instead, once: the difference
between processes that make 800 calls more and fewer. Other work on the machine does not change them, so a
difference of 1 % can be told from none.
"""

import json
import os
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from bench.arguments import known_image
from bench.images import image_file
from bench.measuring.server import Server

ROOT = Path(__file__).parents[2]

_CHILD = """
import asyncio, json, resource, sys, time
from vipsrv import AsyncClient, Client

kind, port, path, calls, method = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]
image = open(path, "rb").read()
options = {"width": 160} if method == "resize" else {}
started = {}

def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

def blocking():
    with Client(port=port) as client:
        call = getattr(client, method)
        for _ in range(calls // 10):
            call(image, **options)
        start()
        for _ in range(calls):
            call(image, **options)
        stop()

async def concurrent():
    async with AsyncClient(port=port) as client:
        call = getattr(client, method)
        async def work(count):
            for _ in range(count):
                await call(image, **options)
        await asyncio.gather(*(work(calls // 160) for _ in range(16)))
        start()
        await asyncio.gather(*(work(calls // 16) for _ in range(16)))
        stop()

def start():
    started.update(cpu=cpu(), time=time.perf_counter())

def stop():
    print(json.dumps([(cpu() - started["cpu"]) / calls, (time.perf_counter() - started["time"]) / calls]))

if kind == "blocking":
    blocking()
else:
    asyncio.run(concurrent())
"""


COUNTED = 800
"""Calls whose instructions are counted, besides the tenth that a process makes at first."""

_TOTAL = re.compile(r"I +refs: +([\d,]+)")


@dataclass
class Side:
    """The figures of one checkout's client, in µs a call, one for each round."""

    checkout: Path
    cpu: list[float] = field(default_factory=list)
    time: list[float] = field(default_factory=list)

    def measure(self, *arguments: str) -> None:
        """Run a process with its client, and note its figures."""
        cpu, seconds = json.loads(self._run([], *arguments).stdout)
        self.cpu.append(cpu * 1e6)
        self.time.append(seconds * 1e6)

    def instructions(self, kind: str, port: str, image: str, method: str) -> float:
        """Return how many instructions a call takes."""
        counter = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        few, many = 160, 160 + COUNTED
        counts = []
        for calls in (few, many):
            told = self._run(counter, kind, port, image, str(calls), method).stderr
            total = _TOTAL.search(told)
            if total is None:
                raise SystemExit(f"valgrind told no count:\n{told}")
            counts.append(int(total[1].replace(",", "")))
        return (counts[1] - counts[0]) / (COUNTED + COUNTED // 10)  # with those at first

    def _run(self, before: list[str], *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*before, sys.executable, "-c", _CHILD, *arguments],
            # The order of what is in sets decides how many instructions are taken.
            env={**os.environ, "PYTHONPATH": str(self.checkout), "PYTHONHASHSEED": "0"},
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
        )


def main(
    old_checkout: Annotated[Path, typer.Argument(exists=True, file_okay=False)],
    name: Annotated[
        str, typer.Option("--image", help="One of bench.images.", callback=known_image)
    ] = "jpeg-0.3mp.jpg",
    rounds: Annotated[int, typer.Option(min=1)] = 15,
    calls: Annotated[int, typer.Option(min=160)] = 1500,
    *,
    info: Annotated[bool, typer.Option("--info", help="Make INFO requests.")] = False,
    instructions: Annotated[
        bool, typer.Option("--instructions", help="Count instructions (needs valgrind).")
    ] = False,
) -> None:
    """Print CPU and time of a call for both clients of both checkouts, and the ratios, new to old."""
    image = str(image_file(name))
    method = "info" if info else "resize"
    with Server("--workers", "1", "--log-level", "error", "--access-log", "off") as server:
        for kind in ("blocking", "asyncio"):
            old, new = Side(old_checkout.resolve()), Side(ROOT)
            if instructions:
                counts = [side.instructions(kind, str(server.port), image, method) for side in (old, new)]
                print(
                    f"{kind:<9} {method} {counts[0]:9,.0f} -> {counts[1]:9,.0f} instructions a call, "
                    f"ratio {counts[1] / counts[0]:.3f}"
                )
                continue
            for number in range(rounds):
                for side in (old, new) if number % 2 else (new, old):
                    side.measure(kind, str(server.port), image, str(calls), method)
            for what, before, after in (("CPU", old.cpu, new.cpu), ("time", old.time, new.time)):
                ratios = [new / old for new, old in zip(after, before, strict=True)]
                print(
                    f"{kind:<9} {method} {what:<5} {statistics.median(before):8.1f} -> "
                    f"{statistics.median(after):8.1f} µs a call, ratio {statistics.median(ratios):.3f} "
                    f"(quartiles {' to '.join(f'{one:.3f}' for one in _quartiles(ratios))})"
                )


def _quartiles(values: list[float]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4)
    return low, high


if __name__ == "__main__":
    typer.run(main)
