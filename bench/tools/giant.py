"""Compare a 400-megapixel TIFF through the server, upload included, with ``vipsthumbnail`` on the file.

    python -m bench.tools.giant [strip-400mp.tif tiled-deflate-400mp.tif] [--rounds 5]

An idle server with its defaults and one client. Both do the same (800 × 600, JPEG of quality 85) and take
turns. The file is read before each turn, so that it is in the page cache for both. The server is compared
with the ``vipsthumbnail`` command, if it is on the path, and with ``Image.thumbnail`` of pyvips, which uses
the server's libvips, in a process of its own with a thread a core, without the start of Python. The ratio
that counts is that of the medians.
"""

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import pyvips
import typer

from bench.arguments import known_images
from bench.baselines import vipsthumbnail
from bench.images import image_file
from bench.measuring.server import Server
from vipsrv import Client

WIDTH, HEIGHT = 800, 600


@dataclass
class Way:
    """One way to resize. ``run`` resizes once and returns the seconds; ``seconds`` are those of each turn."""

    name: str
    run: Callable[[Path], float]
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of ``seconds``."""
        return statistics.median(self.seconds)


@dataclass
class Breakdown:
    """Each turn's milliseconds at the server, and CPU seconds of the gateway and of all workers."""

    receive: list[float] = field(default_factory=list)
    process: list[float] = field(default_factory=list)
    gateway: list[float] = field(default_factory=list)
    workers: list[float] = field(default_factory=list)

    def without_first(self) -> "Breakdown":
        """Leave out the first turn, a warm-up."""
        return Breakdown(self.receive[1:], self.process[1:], self.gateway[1:], self.workers[1:])

    def __str__(self) -> str:
        """The medians, in words."""
        receive, process, gateway, workers = map(
            statistics.median, (self.receive, self.process, self.gateway, self.workers)
        )
        return (
            f"upload {receive / 1e3:.2f} s, work {process / 1e3:.2f} s; "
            f"CPU of the gateway {gateway:.2f} s, of the workers {workers:.2f} s"
        )


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of bench.images.", callback=known_images)
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns to count, after a warm-up.")] = 5,
) -> None:
    """Print the medians, the breakdown of the server's time and the ratios."""
    cores = len(os.sched_getaffinity(0))
    command = vipsthumbnail.command()
    libvips = ".".join(str(pyvips.version(part)) for part in range(3))
    print(f"{cores} cores; libvips {libvips} in the server and in pyvips")
    print(f"vipsthumbnail: {_version(command) if command else 'missing: no such command on the path'}")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vipsrv-bench-"))
        server = stack.enter_context(Server("--log-level", "warning"))
        client = stack.enter_context(Client(port=server.port))
        out = Path(folder) / "out.jpg"
        for name in names or ["strip-400mp.tif", "tiled-deflate-400mp.tif"]:
            breakdown = Breakdown()
            ways = [Way("vipsrv", partial(_ask, client, server, breakdown))]
            if command:
                ways.append(Way("vipsthumbnail", partial(_by_command, command, out)))
            ways.append(Way("pyvips", partial(_by_pyvips, out)))
            _take_turns(ways, image_file(name), rounds)
            _print(name, ways, breakdown.without_first())


def _take_turns(ways: list[Way], path: Path, rounds: int) -> None:
    for number in range(rounds + 1):
        for way in ways:
            vipsthumbnail.read_into_cache(path)
            seconds = way.run(path)
            if number:
                way.seconds.append(seconds)


def _print(name: str, ways: list[Way], breakdown: Breakdown) -> None:
    ours, *others = ways
    for way in ways:
        print(
            f"{name}: {way.name:14} {way.median:6.2f} s "
            f"({min(way.seconds):.2f} to {max(way.seconds):.2f} of {len(way.seconds)})"
        )
    print(f"{name}: {breakdown}")
    for other in others:
        print(f"{name}: ratio to {other.name} {ours.median / other.median:.2f}", flush=True)


def _ask(client: Client, server: Server, breakdown: Breakdown, path: Path) -> float:
    before = server.cpu_seconds()
    start = time.monotonic()
    result = client.resize(path, width=WIDTH, height=HEIGHT)
    seconds = time.monotonic() - start
    used = [after - was for was, after in zip(before, server.cpu_seconds(), strict=True)]
    assert result.timings is not None
    breakdown.receive.append(result.timings.receive)
    breakdown.process.append(result.timings.process)
    breakdown.gateway.append(used[0])
    breakdown.workers.append(sum(used[1:]))
    return seconds


def _by_command(command: str, out: Path, path: Path) -> float:
    return vipsthumbnail.by_command(command, path, WIDTH, HEIGHT, out).seconds


def _by_pyvips(out: Path, path: Path) -> float:
    return vipsthumbnail.by_pyvips(path, WIDTH, HEIGHT, out).seconds


def _version(command: str) -> str:
    said = subprocess.run([command, "--vips-version"], check=True, capture_output=True, text=True).stdout
    return f"{command}, {said.strip()}"


if __name__ == "__main__":
    typer.run(main)
