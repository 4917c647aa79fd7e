"""Measure how much memory giants take: each is sent by the command-line client to a running server.

    python -m bench.tools.memory [strip-400mp.tif tiled-deflate-400mp.tif] [--by http]

With ``--by http``, ``chunked`` or ``form``, curl sends it over HTTP: with its size, in chunks, or in a form.

Prints the growth in anonymous memory of all server processes together while each was processed, sampled every
few milliseconds, and how long the call took.
"""

import subprocess
import sys
import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.arguments import known_images
from bench.images import image_file
from bench.measuring.processes import anonymous_bytes
from bench.measuring.sampling import Peak
from bench.measuring.server import Server


class Way(StrEnum):
    """By which client an image is sent, and how."""

    CLIENT = "client"
    HTTP = "http"
    CHUNKED = "chunked"
    FORM = "form"


CLIENT = "from vipsrv.cli.client import main; main()"
"""The same as the console script ``vipsrv-client``, wherever that is installed."""


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of bench.images.", callback=known_images)
    ] = None,
    workers: Annotated[int, typer.Option(min=1)] = 2,
    by: Annotated[Way, typer.Option(help="Who sends it, and how.")] = Way.CLIENT,
) -> None:
    """Print a line for each image."""
    listener = "127.0.0.1:0" if by is Way.CLIENT else "http://127.0.0.1:0"
    settings = ("--workers", str(workers), "--log-level", "warning", "--listen", listener)
    with Server(*settings) as server, _folder() as folder:
        for name in names or ["strip-400mp.tif", "tiled-deflate-400mp.tif"]:
            path = image_file(name)
            pids = server.pids
            before = sum(map(anonymous_bytes, pids))
            result = Path(folder) / "result.jpg"
            command = [sys.executable, "-c", CLIENT, str(path), "--width", "800", "--height", "600"]
            command += ["--port", str(server.port), "--quiet", "--output", str(result)]
            if by is not Way.CLIENT:
                command = curl(path, result, server.port, by)
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


def curl(path: Path, result: Path, port: int, by: Way) -> list[str]:
    """Return the command by which curl sends a file without reading it into memory first."""
    url = f"http://127.0.0.1:{port}/resize?width=800&height=600"
    body = ["--upload-file", str(path), "--request", "POST"]
    if by is Way.FORM:
        body = ["--form", f"image=@{path}"]
    fields = ["--header", "Transfer-Encoding: chunked"] if by is Way.CHUNKED else []
    return ["curl", "--silent", "--show-error", "--fail", *body, *fields, "--output", str(result), url]


def _folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="vipsrv-bench-")


if __name__ == "__main__":
    typer.run(main)
