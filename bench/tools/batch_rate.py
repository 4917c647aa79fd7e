"""Compare the rate of the local engine with what ``bench.load`` reaches against the same server.

    python -m bench.tools.batch_rate [--images 3000] [--rounds 5] [--workers 2] [--folder /dev/shm]

The load and the engine take turns with one server, with the same images of 1600 × 1200 pixels. The load keeps
its images in memory and throws its results away; the engine reads files, writes results and the manifest.
Each is measured after its start.

If all cores are busy, the rate is the CPU time that an image takes, of the server and of its client together,
which other programs on the machine disturb less than the clock: ``rate by CPU`` is the load's CPU over the
engine's. Both are asked to be at least 0.95; the clock is not judged where other programs used more than a
fifth of the cores.

Files and results are in a temporary folder in ``--folder``. A disk adds the CPU time of its file system.
"""

import shutil
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bench.batch.engine_run import START, run_engine
from bench.image_sets import SETS, make_set
from bench.load.plan import Plan, Source
from bench.load.run import run
from bench.load.summary import StartedServer
from bench.measuring.cores import Cores
from bench.measuring.server import Server
from bench.tools.batch_tables import CROWDED

LEAST = 0.95
WIDTH, HEIGHT = 800, 600
SET = "screens"
MEGA = 1e6


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of each. CPU is milliseconds an image, of the server and of its client."""

    load_rate: float
    load_server: float
    load_client: float
    engine_rate: float
    engine_server: float
    engine_client: float
    peak_bytes: int
    others_share: float

    @property
    def rate(self) -> float:
        """The engine's rate over the load's, by the clock."""
        return self.engine_rate / self.load_rate

    @property
    def rate_by_cpu(self) -> float:
        """The same by the CPU time of all processes."""
        return (self.load_server + self.load_client) / (self.engine_server + self.engine_client)


def one_round(server: StartedServer, files: list[Path], folder: Path) -> Round:
    """Let the load, then the engine, use the server."""
    count = round(len(files) * (1 - START))
    different = [Source(path.name, path, path.stat().st_size) for path in files[: len(SETS[SET])]]
    plan = Plan(
        host=server.server.host,
        port=server.server.port,
        sources=tuple(different),
        protocol=2,
        width=WIDTH,
        height=HEIGHT,
        warmup=0.5,
        count=count,
    )
    before = Cores.now()
    load = run(plan, processes=1, own=server)
    assert load.server is not None
    if load.errors:
        raise typer.BadParameter(f"the server refused requests: {load.errors}")
    results = folder / "results"
    shutil.rmtree(results, ignore_errors=True)
    used = sum(server.server.cpu_seconds())
    engine = run_engine(files[0].parent, results, f"{server.server.host}:{server.server.port}", WIDTH)
    used = sum(server.server.cpu_seconds()) - used
    if engine.failed or engine.images != len(files):
        raise typer.BadParameter(f"{engine.failed} of {engine.images} images failed, of {len(files)} files")
    spent = Cores.now() - before
    engine_cpu = used + engine.cpu_ms * engine.images / 1e3
    load_cpu = (load.server.cpu_ms + load.generator.cpu_ms) * count / 1e3
    return Round(
        load_rate=load.replies_per_second,
        load_server=load.server.cpu_ms,
        load_client=load.generator.cpu_ms,
        engine_rate=engine.rate,
        engine_server=used / engine.images * 1e3,
        engine_client=engine.cpu_ms,
        peak_bytes=engine.peak_bytes,
        others_share=max(0.0, (spent.busy + spent.stolen - engine_cpu - load_cpu) / spent.total),
    )


def main(
    images: Annotated[int, typer.Option(min=100, help="Files of 1600 × 1200 pixels.")] = 3000,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    workers: Annotated[int, typer.Option(min=0, help="Of the server; 0 for its default.")] = 0,
    folder: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, exists=True, help="Where files and results are. [default: that of TMPDIR]"
        ),
    ] = None,
) -> None:
    """Print each round, and the medians."""
    arguments = ["--log-level", "error", "--idle-timeout", "3600"]
    if workers:
        arguments += ["--workers", str(workers)]
    done: list[Round] = []
    with (
        tempfile.TemporaryDirectory(prefix="vipsrv-bench-", dir=folder) as place,
        Server(*arguments) as server,
    ):
        files = make_set(SET, images, Path(place) / "images")
        for number in range(rounds):
            done.append(one_round(StartedServer(server, arguments), files, Path(place)))
            print(f"round {number + 1} of {rounds}: {_words([done[-1]])}", flush=True)
    print(f"median: {_words(done)}")
    others = max(one.others_share for one in done)
    print(
        f"the engine's process takes {max(one.peak_bytes for one in done) / MEGA:.0f} MB at most; "
        f"others used up to {others:.0%} of the cores"
    )
    ratios = {
        "by the clock": statistics.median(one.rate for one in done),
        "by CPU": statistics.median(one.rate_by_cpu for one in done),
    }
    for name, ratio in ratios.items():
        verdict = "met    " if ratio >= LEAST else "NOT MET"
        if name == "by the clock" and others > CROWDED:
            verdict = "not judged, as others used the cores:"
        print(f"{verdict} rate {name}: {ratio:.3f}, at least {LEAST}")


def _words(rounds: list[Round]) -> str:
    def median(name: str, digits: int) -> str:
        return f"{statistics.median(getattr(one, name) for one in rounds):.{digits}f}"

    return (
        f"load {median('load_rate', 1)} images/s, CPU {median('load_server', 2)} + "
        f"{median('load_client', 2)} ms; engine {median('engine_rate', 1)} images/s, CPU "
        f"{median('engine_server', 2)} + {median('engine_client', 2)} ms; rate {median('rate', 3)}, "
        f"by CPU {median('rate_by_cpu', 3)}"
    )


if __name__ == "__main__":
    typer.run(main)
