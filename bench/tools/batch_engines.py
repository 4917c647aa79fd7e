"""Compare the engines of a batch on this machine: the local one, and Ray with an actor for each core.

    python -m bench.tools.batch_engines [--images 10000] [--rounds 3] [--actors 2] [--set tiny]

The engines take turns with the same files. A run has a start (Ray, servers, connections) up to its first row,
a rate and the CPU time an image from the first fifth of the rows to the last one, and an end (connections,
servers, Ray). The rate is told by the clock, and by the CPU time of all processes, which other programs
disturb less: with all cores busy, the engine that takes less of it an image has the higher rate. Ray is asked
for at least 0.85 of the local engine's rate.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import ROOT
from bench.image_sets import SETS, make_set
from bench.measuring.cores import Cores
from bench.measuring.processes import tree_cpu_seconds
from vipsrv.batch import run
from vipsrv.options import Fit, ResizeOptions

LEAST = 0.85
START = 0.2
"""The share of the rows that come before the measurement."""


@dataclass(frozen=True, slots=True)
class EngineRun:
    """One run. ``rate`` is images a second, ``cpu_ms`` of all processes an image, the rest seconds."""

    images: int
    failed: int
    start: float
    rate: float
    cpu_ms: float
    end: float


def measure(source: Path, destination: Path, count: int, width: int, engine: dict[str, Any]) -> EngineRun:
    """Run an engine in this process, which must have no other children."""
    options = ResizeOptions(width=width, fit=Fit.INSIDE, quality=85)
    began = time.monotonic()
    first = last = from_time = 0.0
    from_cpu = to_cpu = 0.0
    images = failed = from_image = 0
    for row in run(source, destination, options, **engine):
        images += 1
        failed += not row.ok
        last = time.monotonic()
        first = first or last
        if images == int(count * START):
            from_time, from_cpu, from_image = last, tree_cpu_seconds(os.getpid()), images
        if images == count:
            to_cpu = tree_cpu_seconds(os.getpid())  # before the end: it cannot be read of ended processes
    measured = images - from_image
    return EngineRun(
        images=images,
        failed=failed,
        start=first - began,
        rate=measured / (last - from_time),
        cpu_ms=(to_cpu - from_cpu) / measured * 1e3,
        end=time.monotonic() - last,
    )


def in_a_process(
    source: Path, destination: Path, count: int, width: int, engine: dict[str, Any]
) -> EngineRun:
    """Run an engine in a process of its own. Raises ``subprocess.CalledProcessError``."""
    shutil.rmtree(destination, ignore_errors=True)
    arguments = [str(source), str(destination), str(count), str(width), json.dumps(engine)]
    done = subprocess.run(
        [sys.executable, "-m", "bench.tools.batch_engines", "--one", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
        cwd=ROOT,
    )
    found = EngineRun(**json.loads(done.stdout))
    if found.failed or found.images != count:
        raise typer.BadParameter(f"{found.failed} of {found.images} images failed, of {count} files")
    return found


def main(
    images: Annotated[int, typer.Option(min=1000)] = 10_000,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    actors: Annotated[int, typer.Option(min=1, help="Of Ray, with one core each.")] = 2,
    width: Annotated[int, typer.Option(min=1, help="Of the results, in pixels.")] = 64,
    kind: Annotated[str, typer.Option("--set", help=f"The images: {', '.join(SETS)}.")] = "tiny",
    folder: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, exists=True, help="Where files and results are. [default: that of TMPDIR]"
        ),
    ] = None,
) -> None:
    """Print each run, the medians, and the ratios."""
    engines: dict[str, dict[str, Any]] = {
        "local": {"engine": "local"},
        "ray": {"engine": "ray", "actors": actors, "actor_cpus": 1},
    }
    runs: dict[str, list[EngineRun]] = {name: [] for name in engines}
    others = 0.0
    with tempfile.TemporaryDirectory(prefix="vipsrv-bench-", dir=folder) as place:
        make_set(kind, images, Path(place) / "images")
        for _ in range(rounds):
            for name, engine in engines.items():
                before = Cores.now()
                one = in_a_process(Path(place) / "images", Path(place) / "results", images, width, engine)
                spent = Cores.now() - before
                own = one.cpu_ms * images / 1e3
                others = max(others, (spent.busy + spent.stolen - own) / spent.total)
                runs[name].append(one)
                print(f"{name:5}: {_words([one])}", flush=True)
    for name, found in runs.items():
        print(f"median of {name}: {_words(found)}")
    print(f"others, and starts and ends, used up to {others:.0%} of the cores")
    pairs = list(zip(runs["ray"], runs["local"], strict=True))
    ratios = {
        "by the clock": statistics.median(ray.rate / local.rate for ray, local in pairs),
        "by CPU": statistics.median(local.cpu_ms / ray.cpu_ms for ray, local in pairs),
    }
    for name, ratio in ratios.items():
        print(f"{'met   ' if ratio >= LEAST else 'NOT MET'} rate {name}: {ratio:.3f}, at least {LEAST}")


def _words(runs: list[EngineRun]) -> str:
    def median(name: str, digits: int) -> str:
        return f"{statistics.median(getattr(one, name) for one in runs):.{digits}f}"

    return (
        f"{median('rate', 1)} images/s, CPU {median('cpu_ms', 2)} ms an image; start {median('start', 1)} s, "
        f"end {median('end', 1)} s"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        where, to, number, pixels, choices = sys.argv[2:]
        print(
            json.dumps(asdict(measure(Path(where), Path(to), int(number), int(pixels), json.loads(choices))))
        )
    else:
        typer.run(main)
