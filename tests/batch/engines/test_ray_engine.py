"""The engine for Ray on a real cluster: actors, nodes and the driver die, and each image has one row.

The tests share a cluster, so all of them run in the same process (``tests/support/one_process.py``).
"""

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from tests.support.images import jpeg
from tests.support.ray_cluster import RayCluster
from vipsrv.batch import Row, open_destination, open_source, run
from vipsrv.batch.engines import ray_actors, ray_driver, scheduling
from vipsrv.batch.engines.interface import Shard, Work
from vipsrv.batch.engines.ray_engine import RayEngine
from vipsrv.errors import StorageFailed
from vipsrv.options import Fit, ResizeOptions

pytestmark = pytest.mark.usefixtures("cluster")

IMAGES = 240
SHARD_SIZE = 40
SMALLER = ResizeOptions(width=16, fit=Fit.INSIDE)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with RayCluster() as started:
        yield started


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, of which each has its own size, and one that is broken."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(IMAGES - 1):
        (folder / f"{number:03}.jpg").write_bytes(jpeg(32, 20 + number % 40))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_actors, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(ray_actors, "AGAIN_SECONDS", 0.1)


def rows_of(
    source: Path,
    destination: Path,
    *,
    at_row: Callable[[int], None] = lambda _: None,
    with_row: Callable[[Row], None] = lambda _: None,
    before_shard: Callable[[int], bool] = lambda _: True,
    engines: list[RayEngine] | None = None,
    actors: int | None = None,
) -> list[Row]:
    """Run a batch on the cluster.

    ``at_row`` is called with the number of each row in the driver's event loop, which does nothing else
    meanwhile, and ``with_row`` in this thread. ``before_shard`` is asked with the number of a shard until it
    lets it be taken. ``engines`` gets the engine.
    """

    class Engine(RayEngine):
        async def rows(self, shards: AsyncIterator[Shard]) -> AsyncGenerator[Row, None]:
            async def gated() -> AsyncIterator[Shard]:
                number = 0
                async for shard in shards:
                    number += 1
                    while not before_shard(number):
                        await asyncio.sleep(0.02)
                    yield shard

            number = 0
            async with aclosing(super().rows(gated())) as given:
                async for row in given:
                    number += 1
                    at_row(number)
                    yield row

    def engine(work: Work) -> Engine:
        made = Engine(work, actors=actors, actor_cpus=None if actors is None else 1)
        if engines is not None:
            engines.append(made)
        return made

    opened = open_source(source, destination=destination), open_destination(destination)
    rows = []
    for row in run(*opened, SMALLER, engine=engine, shard_size=SHARD_SIZE):
        rows.append(row)
        with_row(row)
    return rows


def locally(source: Path, destination: Path) -> list[Row]:
    """Run the same batch by the local engine."""
    return list(run(open_source(source, destination=destination), open_destination(destination), SMALLER))


def manifest(destination: Path) -> list[str]:
    """The keys of all rows of the manifest."""
    parts = (destination / ".vipsrv" / "parts").glob("*.parquet")
    return [key for part in parts for key in pq.read_table(part, columns=["key"])["key"].to_pylist()]


def results(destination: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in destination.glob("*.jpg")}


def check(rows: list[Row], images: Path, destination: Path) -> None:
    """Each image has one row, here and in the manifest, and its result; nothing else is left."""
    names = sorted(path.name for path in images.iterdir())
    assert sorted(row.key for row in rows) == names
    assert sorted(manifest(destination)) == names
    assert Counter(row.code for row in rows) == {"ok": IMAGES - 1, "corrupt_image": 1}
    made = {row.outputs[0].key for row in rows if row.ok}
    assert results(destination).keys() == made
    assert len(made) == IMAGES - 1
    assert not list((destination / ".vipsrv").glob("journal/*.jsonl"))
    assert not (destination / ".vipsrv" / "ray").exists()


@pytest.fixture(scope="module")
def expected(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results of the local engine."""
    destination = tmp_path_factory.mktemp("expected")
    check(locally(images, destination), images, destination)
    return results(destination)


def test_nodes_and_actors_that_come_and_go_cost_nothing_but_time(
    cluster: RayCluster,
    images: Path,
    expected: dict[str, bytes],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A node joins and gets an actor; the first node's actor is killed and replaced; the second node goes."""
    caplog.set_level(logging.INFO, "vipsrv.batch")
    nodes: list[object] = []
    killed: list[int] = []

    def ready() -> int:
        return caplog.text.count("is ready")

    def dead() -> int:
        return caplog.text.count("has died, and another one does what it has left")

    def before_shard(number: int) -> bool:
        """Two shards are for the first actor, two more for both, and so on."""
        return number <= 2 + 2 * (ready() >= 2) + (ready() >= 3) or dead() == 2

    def with_row(_row: Row) -> None:
        if not nodes:  # in this thread: what a thread has started ends with it
            nodes.append(cluster.add_node())

    def at_row(_number: int) -> None:
        if ready() == 2 and not killed:
            killed.append(cluster.actors()[0].pid)
            os.kill(killed[0], signal.SIGKILL)
        if ready() == 3 and len(nodes) == 1:
            cluster.remove_node(nodes[0])
            nodes.append(None)

    rows = rows_of(images, tmp_path / "out", at_row=at_row, with_row=with_row, before_shard=before_shard)
    check(rows, images, tmp_path / "out")
    assert results(tmp_path / "out") == expected
    assert dead() == 2


def test_an_actor_that_hangs_is_not_waited_for(
    cluster: RayCluster,
    images: Path,
    expected: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduling, "STUCK_SECONDS", 0.5)
    monkeypatch.setattr(ray_driver, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(ray_actors, "CLOSE_SECONDS", 0.5)
    stopped: list[int] = []

    def at_row(number: int) -> None:
        if number == 20:
            stopped.append(cluster.actors()[0].pid)
            os.kill(stopped[0], signal.SIGSTOP)

    try:
        rows = rows_of(images, tmp_path / "out", at_row=at_row, actors=2)
    finally:
        os.kill(stopped[0], signal.SIGKILL)
    check(rows, images, tmp_path / "out")
    assert results(tmp_path / "out") == expected


def test_a_source_that_goes_stops_the_batch_and_the_same_command_goes_on(
    images: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    source, gone = tmp_path / "in", tmp_path / "gone"
    shutil.copytree(images, source)
    seen: list[Row] = []

    def go(number: int) -> None:
        if number == 20:
            source.rename(gone)

    def keep(row: Row) -> None:
        seen.append(row)

    with pytest.raises(StorageFailed, match=r"in: the folder is gone.*run the same command again"):
        rows_of(source, tmp_path / "out", at_row=go, with_row=keep)
    assert len(seen) >= 20
    gone.rename(source)
    rest = locally(source, tmp_path / "out")
    check([*seen, *rest], images, tmp_path / "out")
    assert results(tmp_path / "out") == expected


def test_stop_ends_after_what_is_in_flight_and_the_same_command_goes_on(
    images: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    engines: list[RayEngine] = []

    def stop(number: int) -> None:
        if number == 20:
            engines[0].stop()

    rows = rows_of(images, tmp_path / "out", at_row=stop, engines=engines)
    assert 20 <= len(rows) < IMAGES
    assert sorted(manifest(tmp_path / "out")) == sorted(row.key for row in rows)
    check([*rows, *locally(images, tmp_path / "out")], images, tmp_path / "out")
    assert results(tmp_path / "out") == expected


DRIVER = """
import sys
from vipsrv.batch import open_destination, open_source, run
from vipsrv.batch.engines.ray_engine import RayEngine
from vipsrv.errors import BatchError, StorageFailed
from vipsrv.options import Fit, ResizeOptions

source, destination = sys.argv[1:]
for row in run(
    open_source(source, destination=destination),
    open_destination(destination),
    ResizeOptions(width=16, fit=Fit.INSIDE),
    engine=lambda work: RayEngine(work, actors=2, actor_cpus=1),
    shard_size=40,
):
    print(row.key, flush=True)
    sys.stdin.readline()
"""


AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""They look for their killed node for a minute before they end."""


def test_a_driver_that_is_killed_loses_nothing_that_it_has_told(
    images: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(images), str(tmp_path / "out")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdin is not None
        told = [driver.stdout.readline().strip()]
        family = psutil.Process(driver.pid).children(recursive=True)
        names = " ".join(one.name() for one in family)
        assert names.count("ray::Node") == 2, names
        assert "raylet" in names
        listening = {
            port.laddr.ip for one in family for port in one.net_connections("tcp") if port.status == "LISTEN"
        }
        assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}, listening
        driver.kill()
    agents = [one for one in family if one.is_running() and one.name() in AGENTS]
    working = [one for one in family if one not in agents]
    assert not psutil.wait_procs(working, timeout=30)[1]
    for agent in agents:
        agent.kill()
    rows = locally(images, tmp_path / "out")
    assert told[0] in {path.name for path in images.iterdir()}
    assert told[0] not in {row.key for row in rows}
    assert sorted(manifest(tmp_path / "out")) == sorted(path.name for path in images.iterdir())
    assert results(tmp_path / "out") == expected
