"""The runner of shards, with images and a server that are made up: what it holds, retries and gives up."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from vipsrv.batch.engines.interface import Shard, Work
from vipsrv.batch.images import ListedImage
from vipsrv.batch.outputs import Outputs
from vipsrv.batch.rows import Row
from vipsrv.batch.shard_record import UnrecordedShard
from vipsrv.batch.shard_runner import OPEN_SHARDS, ROWS_WAITING, SEATS_BESIDE_WINDOW, ShardRunner
from vipsrv.batch.stores.left_out import LeftOut
from vipsrv.client import ResizedImage, ResizeResults, ServerLimits
from vipsrv.client.window import Window
from vipsrv.errors import (
    BatchError,
    Busy,
    ConnectFailed,
    ConnectionLost,
    CorruptImage,
    InternalError,
    StorageFailed,
    Unauthorized,
    VipsrvError,
    WorkerDied,
)
from vipsrv.options import Fit, ImageInfo, ResizeOptions, Timings

OUTPUTS = Outputs((ResizeOptions(width=32, fit=Fit.INSIDE),))
LIMITS = ServerLimits(workers=4, queue_per_client=100)
SIZE = 1000
DATA = b"result" * 10
MANY = 20_000


class FakeSource:
    """Images of ``SIZE`` bytes each."""

    url = "fake:source"

    def __init__(self) -> None:
        self.left_out = LeftOut()
        self.open_now = self.open_most = 0

    async def images(self) -> AsyncIterator[ListedImage]:
        for image in images(0):
            yield image

    @asynccontextmanager
    async def open(self, image: ListedImage) -> AsyncIterator[bytes]:
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        try:
            await asyncio.sleep(0)
            yield image.key.encode().ljust(SIZE)
        finally:
            self.open_now -= 1

    async def close(self) -> None:
        pass


class FakeDestination:
    """Takes results and keeps their keys only; ``fail`` is called before each."""

    url = "fake:destination"

    def __init__(self, fail: Callable[[str], None] = lambda _key: None) -> None:
        self.written: set[str] = set()
        self._fail = fail

    async def write(self, key: str, data: bytes) -> None:
        assert data == DATA
        await asyncio.sleep(0)
        self._fail(key)
        self.written.add(key)

    async def read(self, key: str) -> bytes:
        raise FileNotFoundError(key)

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        for key in sorted(self.written):
            if key.startswith(prefix):
                yield key

    async def remove(self, key: str) -> None:
        self.written.discard(key)

    async def close(self) -> None:
        pass


class FakeClient:
    """Answers each image at the next turn of the loop, by ``answer``, which gets its key and the attempt."""

    def __init__(self, answer: Callable[[str, int], VipsrvError | None] = lambda _key, _number: None) -> None:
        self._answer = answer
        self.asked: dict[str, int] = {}
        self.in_flight = self.most = self.pings = 0
        self.on_ping: Callable[[], Awaitable[float]] | None = None

    async def ping(self) -> float:
        self.pings += 1
        return 0.0 if self.on_ping is None else await self.on_ping()

    async def resize_all(self, body: bytes, outputs: Sequence[ResizeOptions], **_: Any) -> ResizeResults:
        key = body.rstrip().decode()
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await asyncio.sleep(0)
        finally:
            self.in_flight -= 1
        number = self.asked[key] = self.asked.get(key, 0) + 1
        error = self._answer(key, number)
        if error is not None:
            raise error
        made = ResizedImage(data=DATA, width=32, height=24, format="jpeg", quality=85, ratio=1.0)
        return ResizeResults(
            outputs=(made,) * len(outputs),
            source=ImageInfo(
                format="jpeg", width=64, height=48, pages=1, has_alpha=False, orientation=1, size=len(body)
            ),
            timings=Timings(receive=0.0, queue=0.0, process=0.0, total=0.0),
            ratio=1.0,
            sent=0,
            received=0,
            elapsed=0.0,
        )


def images(count: int, start: int = 0) -> list[ListedImage]:
    return [
        ListedImage(key=f"{number:07}.jpg", size=SIZE, modified=1) for number in range(start, start + count)
    ]


async def shards(count: int, size: int) -> AsyncIterator[Shard]:
    for number in range(count):
        yield Shard(f"run-{number:06}", tuple(images(size, number * size)))


def runner_of(
    client: FakeClient, destination: FakeDestination | None = None, source: FakeSource | None = None
) -> ShardRunner:
    work = Work(
        source=source or FakeSource(),
        destination=destination or FakeDestination(),
        outputs=OUTPUTS,
        run="run",
    )
    return ShardRunner(
        work,
        client,  # type: ignore[arg-type]  # it has what the runner uses
        Window(LIMITS),
        begin_record=UnrecordedShard,
    )


async def rows_of(runner: ShardRunner, *, count: int = 1, size: int = 20) -> list[Row]:
    async with aclosing(runner.rows(shards(count, size))) as rows:
        return [row async for row in rows]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow one another at once."""
    monkeypatch.setattr("vipsrv.batch.image_work._FIRST_PAUSE", 0.0)


def alive() -> int:
    """How many images, rows and results there are in this process, and tasks for them."""
    kinds = (ListedImage, Row, ResizedImage, asyncio.Task)
    return sum(type(one) in kinds for one in gc.get_objects())


async def test_what_is_held_does_not_grow_with_the_number_of_images() -> None:
    """As ``bench.tools.batch_memory`` measures for a million."""
    source, client = FakeSource(), FakeClient()
    runner = runner_of(client, source=source)
    done = most = 0
    async with aclosing(runner.rows(shards(MANY // 1000, 1000))) as rows:
        async for row in rows:
            assert row.ok
            done += 1
            if done % 5000 == 0:
                most = max(most, alive())
    assert done == MANY
    assert client.most <= Window(LIMITS).most
    assert source.open_most <= Window(LIMITS).most + SEATS_BESIDE_WINDOW
    # The images of the open shards, the rows that wait, and those that the record of a shard keeps.
    assert most < 2 * OPEN_SHARDS * 1000 + ROWS_WAITING + 10 * SEATS_BESIDE_WINDOW


async def test_the_end_of_a_shard_leaves_no_worker_idle() -> None:
    """Images of the second shard start before the last one of the first has its row."""
    started: list[str] = []
    release = asyncio.Event()

    class SlowClient(FakeClient):
        async def resize_all(
            self, body: bytes, outputs: Sequence[ResizeOptions], **more: Any
        ) -> ResizeResults:
            key = body.rstrip().decode()
            started.append(key)
            if key == "0000004.jpg":  # the last one of the first shard
                await release.wait()
            elif key >= "0000007.jpg":
                release.set()
            return await super().resize_all(body, outputs, **more)

    rows = await rows_of(runner_of(SlowClient()), count=2, size=5)
    assert len(rows) == 10
    assert next(number for number, row in enumerate(rows) if row.key == "0000004.jpg") > 5


ANSWERS: list[tuple[Callable[[int], VipsrvError | None], str, int]] = [
    (lambda number: Busy("full", retry_after_ms=1) if number < 5 else None, "ok", 1),
    (lambda number: WorkerDied("gone") if number < 2 else None, "ok", 2),
    (lambda _number: WorkerDied("gone"), "worker_died", 2),
    (lambda _number: CorruptImage("no"), "corrupt_image", 1),
    (lambda _number: InternalError("no"), "internal", 1),
    (lambda number: ConnectionLost("gone") if number < 3 else None, "ok", 3),
    (lambda _number: ConnectionLost("gone"), "connection_lost", 3),
    (lambda number: ConnectFailed("nobody") if number < 3 else None, "ok", 1),
]


@pytest.mark.parametrize(("answer", "code", "attempts"), ANSWERS)
async def test_what_an_answer_leads_to(
    answer: Callable[[int], VipsrvError | None], code: str, attempts: int
) -> None:
    """One image of twenty meets it; the others are done all the same."""
    special = "0000007.jpg"
    client = FakeClient(lambda key, number: answer(number) if key == special else None)
    rows = {row.key: row for row in await rows_of(runner_of(client))}
    assert (rows[special].code, rows[special].attempts) == (code, attempts)
    assert sum(row.ok for row in rows.values()) == 19 + (code == "ok")


@pytest.mark.parametrize("error", [Unauthorized("no"), StorageFailed("fake:destination", "full")])
async def test_what_ends_a_batch_comes_after_the_rows_in_flight(error: VipsrvError) -> None:
    def fail(key: str) -> None:
        if isinstance(error, StorageFailed) and key.startswith("0000030"):
            raise error

    client = FakeClient(
        lambda key, _number: error if isinstance(error, Unauthorized) and key == "0000030.jpg" else None
    )
    destination = FakeDestination(fail)
    runner = runner_of(client, destination)
    given: list[Row] = []

    async def take_all() -> None:
        async for row in runner.rows(shards(3, 100)):
            given.append(row)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(type(error)):
        await take_all()
    assert {one.key for row in given for one in row.outputs} == destination.written
    assert 0 < len(given) < 300


async def test_only_the_image_that_breaks_the_connection_fails() -> None:
    """A broken connection ends all requests on it, here of two such images and of others."""
    guilty = {"0000003.jpg", "0000007.jpg"}
    in_flight: dict[str, bool] = {}  # and whether the connection has broken meanwhile

    class OneConnection(FakeClient):
        async def resize_all(self, body: bytes, outputs: Sequence[ResizeOptions], **_: Any) -> ResizeResults:
            key = body.rstrip().decode()
            in_flight[key] = False
            try:
                result = await super().resize_all(body, outputs)
                if key in guilty:
                    in_flight.update(dict.fromkeys(in_flight, True))
                await asyncio.sleep(0)  # those that were sent together end together
                if in_flight[key]:
                    raise ConnectionLost("reset")
                return result
            finally:
                del in_flight[key]

    client = OneConnection()
    rows = {row.key: row for row in await rows_of(runner_of(client))}
    assert len(rows) == 20
    assert {key: (row.code, row.message) for key, row in rows.items() if not row.ok} == dict.fromkeys(
        guilty, ("connection_lost", "reset; no other image was in flight")
    )
    assert max(row.attempts for row in rows.values() if row.ok) == 3  # the test has neighbours at all
    assert client.most > 1


async def test_a_server_that_stays_away_ends_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vipsrv.batch.server_link.PATIENCE", 0.0)
    client = FakeClient(lambda _key, _number: ConnectionLost("gone"))

    async def nobody() -> float:
        raise ConnectFailed("nobody listens")

    client.on_ping = nobody
    with pytest.raises(BatchError, match="not been reached"):
        await rows_of(runner_of(client))
    assert client.pings < 20


async def test_stop_sends_no_further_image() -> None:
    client = FakeClient()
    runner = runner_of(client)
    given = asked = 0
    async with aclosing(runner.rows(shards(10, 100))) as rows:
        async for _ in rows:
            given += 1
            if given == 10:
                runner.stop()
                asked = len(client.asked) + client.in_flight
    assert given == len(client.asked) <= asked < 1000


async def test_a_result_that_cannot_be_stored_is_tried_again() -> None:
    failures = {"0000003_32x.jpg": 2, "0000004_32x.jpg": 9}

    def fail(key: str) -> None:
        if failures.get(key, 0):
            failures[key] -= 1
            raise OSError(5, "Input/output error")

    rows = {row.key: row for row in await rows_of(runner_of(FakeClient(), FakeDestination(fail)))}
    assert rows["0000003.jpg"].ok
    assert (rows["0000004.jpg"].status, rows["0000004.jpg"].code) == (500, "destination_failed")
    assert sum(row.ok for row in rows.values()) == 19


async def test_leaving_the_rows_early_ends_all_tasks() -> None:
    before = asyncio.all_tasks()
    runner = runner_of(FakeClient())
    async with aclosing(runner.rows(shards(10, 100))) as rows:
        async for _ in rows:
            break
    assert asyncio.all_tasks() == before
    assert runner.in_flight == 0
