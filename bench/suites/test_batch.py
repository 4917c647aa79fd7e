"""Suite: what the local engine of a batch adds to its server, and its memory over the number of keys.

Bare requests and the engine take turns with one server and the same images. ``cpu_over_direct`` is the CPU
time of the server and of the client together, of the engine over that of the bare requests: where all cores
are busy, it is how much longer a batch takes.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.batch.synthetic import SyntheticRun, run_synthetic
from bench.image_sets import make_set
from bench.measuring.server import Server
from bench.suites.cases import SCREEN
from bench.suites.loads import Connections, ImageRequest
from bench.suites.measurement import Scale
from vipsrv.batch import run
from vipsrv.options import Fit, ResizeOptions

CONNECTIONS = 4
MEGA = 1e6
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
"""A file system in memory, so that the work of a disk is not measured."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder, in memory if there is such a file system."""
    with tempfile.TemporaryDirectory(
        prefix="vipsrv-bench-", dir=MEMORY if MEMORY.is_dir() else None
    ) as place:
        yield Path(place)


def test_the_local_engine_adds_little_to_its_server(
    benchmark: BenchmarkFixture, all_cores: Server, scale: Scale, folder: Path
) -> None:
    """Reading, results, digests, rows and the manifest take a small part of the CPU of resizing."""
    count = 150 if scale.seconds < 0.2 else 1000
    files = make_set("screens", count, folder / "images")
    options = ResizeOptions(width=SCREEN.width, fit=Fit.INSIDE, quality=85)
    address = f"{all_cores.host}:{all_cores.port}"
    request = ImageRequest(files[0].read_bytes(), SCREEN.width, SCREEN.height)
    direct: list[tuple[float, float]] = []
    engine: list[tuple[float, float]] = []
    number = 0

    def used() -> tuple[float, float]:
        """CPU of the server and of this process so far."""
        return sum(all_cores.cpu_seconds()), time.process_time()

    def resize_all() -> None:
        nonlocal number
        number += 1
        before = used()
        with run(files[0].parent, folder / f"results-{number}", options, server=address) as rows:
            assert sum(row.ok for row in rows) == count
        engine.append(_since(before, used(), count))

    with Connections(all_cores.port, request, count=CONNECTIONS) as bare:

        def ask_directly() -> None:
            before = used()
            bare.run(count)
            direct.append(_since(before, used(), count))

        ask_directly()
        resize_all()  # the first one imports what it needs
        direct.clear()
        engine.clear()
        benchmark.pedantic(resize_all, setup=ask_directly, rounds=5 if scale.seconds < 0.2 else 11)
    benchmark.extra_info.update(
        images=count,
        server_cpu_ms=statistics.median(server for server, _ in engine),
        client_cpu_ms=statistics.median(client for _, client in engine),
        direct_server_cpu_ms=statistics.median(server for server, _ in direct),
        direct_client_cpu_ms=statistics.median(client for _, client in direct),
        cpu_over_direct=statistics.median(
            sum(one) / sum(other) for one, other in zip(engine, direct, strict=True)
        ),
    )


def test_the_memory_of_a_batch_does_not_grow_with_its_keys(
    benchmark: BenchmarkFixture, scale: Scale, folder: Path
) -> None:
    """Ten times as many keys take the same memory, whether they are all done or all skipped."""
    few, many = (2_000, 20_000) if scale.seconds < 0.2 else (10_000, 100_000)
    runs: list[SyntheticRun] = []

    def measure() -> None:
        for keys in (few, many):
            for _ in range(2):
                runs.append(run_synthetic(keys, folder / str(keys)))  # noqa: PERF401 - it takes seconds

    benchmark.pedantic(measure, rounds=1)
    assert [(one.done, one.skipped) for one in runs] == [(few, 0), (0, few), (many, 0), (0, many)]
    done_few, skipped_few, done_many, skipped_many = runs
    benchmark.extra_info.update(
        keys=many,
        peak_mb=[one.peak_bytes / MEGA for one in runs],
        cpu_us_per_key=[one.cpu / one.keys * MEGA for one in runs],
        memory_last_over_first=max(
            done_many.peak_bytes / done_few.peak_bytes, skipped_many.peak_bytes / skipped_few.peak_bytes
        ),
    )


def _since(before: tuple[float, float], after: tuple[float, float], count: int) -> tuple[float, float]:
    """Milliseconds of CPU an image between two moments."""
    server, client = ((now - then) / count * 1e3 for now, then in zip(after, before, strict=True))
    return server, client
