"""The driver and its actors with a made-up Ray: who cannot work, who is waited for, and no row gets lost."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vipsrv.batch.engines import ray_actors, ray_driver, scheduling
from vipsrv.batch.engines.interface import Shard, Work
from vipsrv.batch.engines.ray_actors import Placement
from vipsrv.batch.engines.ray_connection import ClusterNode, RayConnection
from vipsrv.batch.engines.ray_driver import Driver
from vipsrv.batch.engines.ray_node import Report
from vipsrv.batch.images import ListedImage
from vipsrv.batch.outputs import Outputs
from vipsrv.batch.rows import OK, Row
from vipsrv.batch.stores.open_store import open_destination, open_source
from vipsrv.errors import BatchError, ServerLost
from vipsrv.options import Fit, ResizeOptions
from vipsrv.version import __version__

IMAGES = tuple(ListedImage(key=f"{number:02}.jpg", size=1, modified=1) for number in range(10))


class RayError(Exception):
    pass


class TaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


async def forever() -> None:
    await asyncio.Event().wait()


class Actor:
    """An actor on a node. A test replaces what it is to do in another way."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.killed = asyncio.Event()

    async def version(self) -> tuple[str, str]:
        return __version__, self.node

    async def start(self, _work: object, _cpus: int) -> None:
        pass

    async def missing(self, _images: object) -> tuple[ListedImage, ...]:
        return ()

    async def lifetime(self) -> None:
        await self.killed.wait()
        raise RayError("the actor is dead")

    async def close(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def cancel(self, _number: int) -> None:
        pass

    async def run(self, _number: int, shard: Shard) -> AsyncGenerator[Report, None]:
        for image in shard.images:
            yield Report([row(image.key)], 1)


MakeActor = Callable[[str], Actor]


def row(key: str) -> Row:
    return Row(
        key=key, version="", options="", bytes=0, status=200, code=OK, attempts=1, ms=0.0, ended=0, run="r"
    )


class Method:
    """A method of an actor as Ray has it."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def options(self, **_: Any) -> "Method":
        return self

    def remote(self, *arguments: Any) -> Any:
        made = self._call(*arguments)
        return _streamed(made) if isinstance(made, AsyncGenerator) else asyncio.ensure_future(made)


async def _streamed(reports: AsyncGenerator[Report, None]) -> AsyncIterator[Awaitable[Report]]:
    async for report in reports:

        async def reference(one: Report = report) -> Report:
            return one

        yield reference()


class Handle:
    def __init__(self, actor: Actor) -> None:
        self.actor = actor

    def __getattr__(self, name: str) -> Method:
        return Method(getattr(self.actor, name))


class FakeRay:
    """The part of Ray that the driver uses. ``make`` gets the name of a node and returns its actor."""

    def __init__(self, make: MakeActor) -> None:
        self.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=TaskError)
        self.util = SimpleNamespace(
            scheduling_strategies=SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, **_: node)
        )
        self._make = make

    def remote(self, _of: type) -> Any:
        def options(*, scheduling_strategy: str, **_: Any) -> SimpleNamespace:
            return SimpleNamespace(remote=lambda: Handle(self._make(scheduling_strategy)))

        return SimpleNamespace(options=options)

    def kill(self, handle: Handle) -> None:
        handle.actor.killed.set()


class Connection:
    own = False

    def __init__(self, make: MakeActor, nodes: tuple[str, ...]) -> None:
        self.ray = FakeRay(make)
        self._nodes = [ClusterNode(name, name, 1) for name in nodes]

    async def nodes(self) -> list[ClusterNode]:
        return self._nodes


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_actors, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(ray_actors, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(ray_actors, "CLOSE_SECONDS", 0.01)
    monkeypatch.setattr(ray_driver, "LOOK_SECONDS", 0.01)


def driver_of(folder: Path, make: MakeActor, nodes: tuple[str, ...] = ("node",)) -> Driver:
    (folder / "in").mkdir()
    work = Work(
        source=open_source(folder / "in"),
        destination=open_destination(folder / "out"),
        outputs=Outputs((ResizeOptions(width=8, fit=Fit.INSIDE),)),
        run="r",
    )
    return Driver(work, cast(RayConnection, Connection(make, nodes)), Placement())


async def rows_of(driver: Driver, after: Callable[[int], Coroutine[Any, Any, None]]) -> list[str]:
    """Drive one shard. ``after`` is called with the number of each row."""

    async def no_further() -> AsyncIterator[Shard]:
        return
        yield

    keys: list[str] = []
    async with asyncio.timeout(30), aclosing(driver.rows(Shard("r-1", IMAGES), no_further())) as rows:
        async for one in rows:
            keys.append(one.key)
            await after(len(keys))
    return keys


async def at_once(_number: int) -> None:
    pass


async def test_no_row_is_lost_if_they_are_taken_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_driver, "ROWS_WAITING", 2)

    async def slowly(_number: int) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    assert await rows_of(driver_of(tmp_path, Actor), slowly) == [image.key for image in IMAGES]


async def test_a_node_that_cannot_work_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []

    class Old(Actor):
        async def version(self) -> tuple[str, str]:
            asked.append(self.node)
            if self.node == "old":
                return "0.0.1", self.node
            while "old" not in asked:
                await asyncio.sleep(0)
            return __version__, self.node

    keys = await rows_of(driver_of(tmp_path, Old, ("old", "good")), at_once)
    assert len(keys) == len(IMAGES)
    assert "old has vipsrv 0.0.1" in caplog.text


async def test_the_batch_ends_if_no_node_can_work(tmp_path: Path) -> None:
    class Old(Actor):
        async def version(self) -> tuple[str, str]:
            return "0.0.1", self.node

    with pytest.raises(BatchError, match=r"has vipsrv 0\.0\.1"):
        await rows_of(driver_of(tmp_path, Old, ("a", "b")), at_once)


async def test_the_batch_ends_if_actors_die_at_their_start(tmp_path: Path) -> None:
    made: list[str] = []

    class Dying(Actor):
        async def start(self, _work: object, _cpus: int) -> None:
            made.append(self.node)
            raise RayError("out of memory")

    with pytest.raises(BatchError, match="3 actors died at their start: out of memory"):
        await rows_of(driver_of(tmp_path, Dying), at_once)
    assert len(made) == ray_actors.MOST_FAILED_STARTS


async def test_an_actor_that_does_not_start_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_actors, "START_SECONDS", 0.02)

    class Hanging(Actor):
        async def start(self, _work: object, _cpus: int) -> None:
            await forever()

    with pytest.raises(
        BatchError, match=r"node has not opened the storage and started a server within 0\.02"
    ):
        await rows_of(driver_of(tmp_path, Hanging), at_once)


async def test_the_batch_ends_if_no_actor_can_be_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_actors, "WAITING_SECONDS", 0.02)
    monkeypatch.setattr(ray_actors, "MOST_WAITING_SECONDS", 0.06)

    class Pending(Actor):
        async def version(self) -> tuple[str, str]:
            await forever()
            raise AssertionError

    with pytest.raises(BatchError, match=r"no actor could be placed .* nodes and cores: node with 1"):
        await rows_of(driver_of(tmp_path, Pending), at_once)
    assert "no actor works yet: each actor needs all cores of a node" in caplog.text


async def test_an_actor_without_a_server_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Actor] = []

    class Losing(Actor):
        def __init__(self, node: str) -> None:
            super().__init__(node)
            made.append(self)

        async def run(self, number: int, shard: Shard) -> AsyncGenerator[Report, None]:
            async with aclosing(super().run(number, shard)) as reports:
                async for report in reports:
                    yield report
                    if len(made) == 1:
                        raise TaskError(ServerLost("it cannot be started again"))

    keys = await rows_of(driver_of(tmp_path, Losing), at_once)
    assert sorted(keys) == [image.key for image in IMAGES]
    assert "has lost its server: it cannot be started again" in caplog.text
    assert len(made) == 2


async def test_a_stop_does_not_wait_for_an_actor_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scheduling, "STOPPING_SECONDS", 0.05)

    class Hanging(Actor):
        async def run(self, _number: int, shard: Shard) -> AsyncGenerator[Report, None]:
            yield Report([row(shard.images[0].key)], 1)
            await forever()

        async def close(self) -> None:
            await forever()

    driver = driver_of(tmp_path, Hanging)

    async def stop(_number: int) -> None:
        driver.stop()

    assert await rows_of(driver, stop) == [IMAGES[0].key]
    assert "is not waited for" in caplog.text
