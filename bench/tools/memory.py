"""Measure how much memory giants take: each is sent by the command-line client to a running server.

    python -m bench.tools.memory [strip-400mp.tif tiled-deflate-400mp.tif]

Prints the growth in anonymous memory of all server processes together while each was processed, sampled every
few milliseconds, and how long the call took.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from bench.arguments import known_images
from bench.images import image_file
from bench.measuring.processes import anonymous_bytes
from bench.measuring.sampling import Peak
from bench.measuring.server import Server

CLIENT = "from vipsrv.cli.client import main; main()"
"""The same as the console script ``vipsrv-client``, wherever that is installed."""


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of bench.images.", callback=known_images)
    ] = None,
    workers: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Print a line for each image."""
    with Server("--workers", str(workers), "--log-level", "warning") as server, _folder() as folder:
        for name in names or ["strip-400mp.tif", "tiled-deflate-400mp.tif"]:
            path = image_file(name)
            pids = server.pids
            before = sum(map(anonymous_bytes, pids))
            result = Path(folder) / "result.jpg"
            command = [
                sys.executable,
                "-c",
                CLIENT,
                str(path),
                "--width",
                "800",
                "--height",
                "600",
            ]
            command += ["--port", str(server.port), "--quiet", "--output", str(result)]
            start = time.monotonic()
            with Peak(pids) as peak:
                subprocess.run(command, check=True)
            seconds = time.monotonic() - start
            print(
                f"{name}: {path.stat().st_size / 1e6:.0f} MB sent in {seconds:.1f} s; anonymous memory of "
                f"{len(pids)} processes {before / 1e6:.0f} MB before, at most {peak.bytes / 1e6:.0f} MB, "
                f"so {(peak.bytes - before) / 1e6:+.0f} MB; result {result.stat().st_size} bytes"
            )
            if server.pids != pids:
                raise SystemExit("a worker was replaced meanwhile, so this is not its memory")


def _folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="vipsrv-bench-")


if __name__ == "__main__":
    typer.run(main)
