"""A 400-megapixel TIFF through the server, upload included, against ``vipsthumbnail`` on the file itself.

    python -m bench.giant [strip-400mp.tif tiled-deflate-400mp.tif] [--rounds 5]

An idle server with its defaults, one client. Both do the same (800 × 600, JPEG of quality 85) and take turns;
the file is read once before each turn, so that it is in the page cache for both. ``vipsthumbnail`` is the
command where there is one on the path, and in any case ``Image.thumbnail`` of the pyvips at hand in a process
of its own, the libvips of the server, with as many threads as there are cores. The ratio that matters is that
of the medians.
"""

import os
import shutil
import statistics
import subprocess
import sys
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

from bench.pictures import picture
from bench.processes import Server
from vipsrv import Client

WIDTH, HEIGHT, QUALITY = 800, 600, 85

BY_PYVIPS = """
import sys
import pyvips
path, width, height, out = sys.argv[1:]
pyvips.Image.thumbnail(path, int(width), height=int(height), size="force").write_to_file(out)
"""

READ_AT_ONCE = 1 << 24


@dataclass
class Way:
    """``run`` does it once; ``seconds`` of each turn."""

    name: str
    run: Callable[[Path], None]
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


@dataclass
class Breakdown:
    """Milliseconds at the server of each turn, and CPU seconds of its processes: gateway, all workers."""

    receive: list[float] = field(default_factory=list)
    process: list[float] = field(default_factory=list)
    gateway: list[float] = field(default_factory=list)
    workers: list[float] = field(default_factory=list)

    def without_first(self) -> "Breakdown":
        """The turns that are counted."""
        return Breakdown(self.receive[1:], self.process[1:], self.gateway[1:], self.workers[1:])

    def __str__(self) -> str:
        """The medians."""
        receive, process, gateway, workers = map(
            statistics.median, (self.receive, self.process, self.gateway, self.workers)
        )
        return (
            f"upload {receive / 1e3:.2f} s, work {process / 1e3:.2f} s; "
            f"CPU of the gateway {gateway:.2f} s, of the workers {workers:.2f} s"
        )


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Names of bench.pictures.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that are counted; one more warms up.")] = 5,
) -> None:
    """Print the medians of all, the server's breakdown and the ratios."""
    cores = len(os.sched_getaffinity(0))
    command = shutil.which("vipsthumbnail")
    libvips = ".".join(str(pyvips.version(part)) for part in range(3))
    print(f"{cores} cores; libvips {libvips} in the server and in pyvips")
    print(f"vipsthumbnail: {_version(command) if command else 'missing: no such command on the path'}")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vipsrv-bench-"))
        server = stack.enter_context(Server("--log-level", "warning"))
        client = stack.enter_context(Client(port=server.port))
        out = f"{folder}/out.jpg[Q={QUALITY}]"
        for name in names or ["strip-400mp.tif", "tiled-deflate-400mp.tif"]:
            breakdown = Breakdown()
            ways = [Way("vipsrv", partial(_ask, client, server, breakdown))]
            if command:
                ways.append(Way("vipsthumbnail", partial(_run_vipsthumbnail, command, out)))
            ways.append(Way("pyvips", partial(_run_pyvips, out)))
            _take_turns(ways, picture(name), rounds)
            _print(name, ways, breakdown.without_first())


def _take_turns(ways: list[Way], path: Path, rounds: int) -> None:
    for number in range(rounds + 1):
        for way in ways:
            _read(path)
            start = time.monotonic()
            way.run(path)
            if number:
                way.seconds.append(time.monotonic() - start)


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


def _ask(client: Client, server: Server, breakdown: Breakdown, path: Path) -> None:
    before = server.cpu_seconds()
    result = client.resize(path, width=WIDTH, height=HEIGHT, quality=QUALITY)
    used = [after - was for was, after in zip(before, server.cpu_seconds(), strict=True)]
    assert result.timings is not None
    breakdown.receive.append(result.timings.receive)
    breakdown.process.append(result.timings.process)
    breakdown.gateway.append(used[0])
    breakdown.workers.append(sum(used[1:]))


def _run_vipsthumbnail(command: str, out: str, path: Path) -> None:
    _run(command, str(path), "--size", f"{WIDTH}x{HEIGHT}!", "-o", out)


def _run_pyvips(out: str, path: Path) -> None:
    _run(sys.executable, "-c", BY_PYVIPS, str(path), str(WIDTH), str(HEIGHT), out)


def _run(*command: str) -> None:
    # libvips' own default: a thread a core.
    environment = {name: value for name, value in os.environ.items() if name != "VIPS_CONCURRENCY"}
    subprocess.run(command, check=True, env=environment)


def _read(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(READ_AT_ONCE):
            pass


def _version(command: str) -> str:
    said = subprocess.run([command, "--vips-version"], check=True, capture_output=True, text=True).stdout
    return f"{command}, {said.strip()}"


if __name__ == "__main__":
    typer.run(main)
