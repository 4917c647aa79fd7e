"""Measure the memory of the client side of a batch over the number of keys: it must not grow with them.

    python -m bench.tools.batch_memory [--keys 10000 --keys 100000 --keys 1000000] [--folder /dev/shm]

The keys are made up, and the client answers at once; listing, selection, rows, journals and the manifest are
real (``bench.batch.synthetic``). A second run over the same manifest finds all of them done: it reads the
index of what is done and skips each key. Then ``vipsrv batch status`` counts its rows. Memory is the largest
resident set of the process, with Python, its modules and the pages of libraries that other processes share.
No server is a part of it. ``--images`` resizes so many real files of 160 × 120 pixels by a server, too.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bench.batch.engine_run import run_engine
from bench.batch.synthetic import run_status, run_synthetic
from bench.image_sets import make_set
from bench.measuring.server import Server

MOST = 200e6
"""Bytes that are allowed at any number of keys."""

KEYS = [10_000, 100_000, 1_000_000]
MEGA = 1e6


def main(
    keys: Annotated[list[int] | None, typer.Option(min=1, help="Several make several runs.")] = None,
    images: Annotated[int, typer.Option(min=0, help="Real files to resize, too.")] = 0,
    folder: Annotated[
        Path | None,
        typer.Option(file_okay=False, exists=True, help="Where the manifest is. [default: that of TMPDIR]"),
    ] = None,
) -> None:
    """Print a table of the runs, and whether the limit is kept."""
    peaks = []
    print("| keys | run | seconds | CPU µs a key | peak MB |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for count in keys or KEYS:
        with tempfile.TemporaryDirectory(prefix="vipsrv-bench-", dir=folder) as place:
            for name in ("all done", "all skipped"):
                run = run_synthetic(count, Path(place))
                if (run.done, run.skipped) != ((count, 0) if name == "all done" else (0, count)):
                    raise typer.BadParameter(f"{run.done} done and {run.skipped} skipped of {count} keys")
                peaks.append(run.peak_bytes)
                print(
                    f"| {count:,} | {name} | {run.seconds:.1f} | {run.cpu / count * 1e6:.0f} | "
                    f"{run.peak_bytes / MEGA:.0f} |",
                    flush=True,
                )
            status = run_status(Path(place))
            peaks.append(status.peak_bytes)
            print(
                f"| {count:,} | status | {status.seconds:.1f} | {status.cpu / count * 1e6:.0f} | "
                f"{status.peak_bytes / MEGA:.0f} |",
                flush=True,
            )
    if images:
        with (
            tempfile.TemporaryDirectory(prefix="vipsrv-bench-", dir=folder) as place,
            Server("--log-level", "error") as server,
        ):
            files = make_set("tiny", images, Path(place) / "images")
            address = f"{server.host}:{server.port}"
            engine = run_engine(files[0].parent, Path(place) / "results", address, 80)
        if engine.failed or engine.images != images:
            raise typer.BadParameter(f"{engine.failed} of {engine.images} images failed, of {images} files")
        peaks.append(engine.peak_bytes)
        print(
            f"| {images:,} | real files | {engine.seconds:.1f} | {engine.cpu_ms * 1e3:.0f} | "
            f"{engine.peak_bytes / MEGA:.0f} |"
        )
    met = max(peaks) < MOST
    words = f"{max(peaks) / MEGA:.0f} MB at most, below {MOST / MEGA:.0f} MB are asked"
    print(f"{'met   ' if met else 'NOT MET'} {words}")


if __name__ == "__main__":
    typer.run(main)
