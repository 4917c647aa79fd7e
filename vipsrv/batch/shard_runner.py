"""Does the images of shards over one client: reads ahead, writes behind, and keeps the shards' journals.

::

    shards ─► images, in order ─► Room (seats, bytes) ─► a task for each: ImageWork ─► journal ─► rows
                                                                  the shard's last image ─► its part

The images of the next shard start when all of the one before have started, not when they have ended, so that
the end of a shard leaves no worker idle. Every engine uses this: on this machine, and in each process of a
cluster.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from enum import Enum, auto

from vipsrv.batch.engines.interface import Shard, Work
from vipsrv.batch.image_work import ImageWork, Stopped
from vipsrv.batch.images import ListedImage
from vipsrv.batch.manifest.manifest import Manifest
from vipsrv.batch.room import Room, Seat
from vipsrv.batch.rows import Row
from vipsrv.batch.shard_record import BeginRecord, JournaledShard, ShardRecord
from vipsrv.batch.stores.interface import READ_WHOLE
from vipsrv.client import AsyncClient
from vipsrv.client.window import Window

MOST_BYTES = 48 * 2**20
"""Bytes of images that are read ahead and of results that are not yet written."""

SEATS_BESIDE_WINDOW = 64
"""Images that are being read or whose results are being written, besides those in flight. With small images
and a store that takes 50 ms for each step, so many keep a few workers busy."""

UNKNOWN_SIZE = 2**20
"""Bytes that are set aside for an image whose size its source does not know."""

OPEN_SHARDS = 3
"""Shards with images in progress or a part that is being published."""

ROWS_WAITING = 1000
"""Rows that wait for whoever takes them; with more, no image starts."""


class RunnerState(Enum):
    """The states of a runner; it only moves forward."""

    RUNNING = auto()
    """Images are started."""
    STOPPING = auto()
    """No image is sent any more; those in flight end."""
    FAILED = auto()
    """The same, because of an error that ends the batch; journals are kept and no part is published."""


class _OpenShard:
    """A shard in progress: its journal, and how many of its images are."""

    def __init__(self, journal: ShardRecord) -> None:
        self.journal = journal
        self.in_progress = 0
        self.all_started = False
        self.ended = asyncio.Event()

    def start_one(self) -> None:
        self.in_progress += 1

    def end_one(self) -> None:
        self.in_progress -= 1
        self._check()

    def end_starting(self) -> None:
        self.all_started = True
        self._check()

    def _check(self) -> None:
        if self.all_started and not self.in_progress:
            self.ended.set()


class ShardRunner:
    """Does the images of shards over one client.

    ``rows`` may be called several times at once: the calls share the room and the window. A row that is
    yielded is in a journal on this machine's disk, or in a published part, unless ``begin_record`` says that
    somebody else keeps it.
    """

    def __init__(
        self,
        work: Work,
        client: AsyncClient,
        window: Window,
        *,
        most_bytes: int = MOST_BYTES,
        begin_record: BeginRecord | None = None,
    ) -> None:
        self._begin_record = begin_record or JournaledShard.beginner(Manifest(work.destination), work.outputs)
        self._room = Room(window.most + SEATS_BESIDE_WINDOW, most_bytes)
        self._state = RunnerState.RUNNING
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None
        self._starting = asyncio.Lock()  # shards start their images one after another
        self._open = asyncio.Semaphore(OPEN_SHARDS)
        self._images = ImageWork(work, client, window, stopped=self._stopping.is_set)

    @property
    def in_flight(self) -> int:
        """Images that are being read, resized or written."""
        return self._room.taken

    def stop(self) -> None:
        """Send no further image; ``rows`` ends after those in flight. From the event loop's thread only."""
        if self._state is RunnerState.RUNNING:
            self._state = RunnerState.STOPPING
        self._stopping.set()

    async def rows(self, shards: AsyncIterator[Shard]) -> AsyncGenerator[Row, None]:
        """Do the images of all shards and yield their rows as they end.

        Raises what ends the batch (``problems.STOPS``), after the rows of the images in flight.
        """
        ready: asyncio.Queue[Row | None] = asyncio.Queue(ROWS_WAITING)
        feeding = asyncio.create_task(self._feed(shards, ready))
        try:
            while (row := await ready.get()) is not None:
                yield row
            await feeding
            if self._failure is not None:
                raise self._failure
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])

    async def _feed(self, shards: AsyncIterator[Shard], ready: "asyncio.Queue[Row | None]") -> None:
        """Run all shards, then put the ``None`` that ends the rows."""
        async with asyncio.TaskGroup() as tasks:
            try:
                while (shard := await next_shard(shards, self._stopping)) is not None:
                    await self._open.acquire()
                    try:
                        journal = self._begin_record(shard.name)
                    except BaseException:
                        self._open.release()
                        raise
                    opened = _OpenShard(journal)
                    tasks.create_task(self._end_shard(opened))
                    try:
                        await self._start_images(shard, opened, tasks, ready)
                    finally:
                        opened.end_starting()
            except Exception as error:  # noqa: BLE001 - whatever it is ends the batch, after what is in flight
                self._fail(error)
        await ready.put(None)

    async def _start_images(
        self, shard: Shard, opened: _OpenShard, tasks: asyncio.TaskGroup, ready: "asyncio.Queue[Row | None]"
    ) -> None:
        done = {row.key for row in opened.journal.rows}  # by a process that worked on this shard and is dead
        for row in opened.journal.rows:
            await ready.put(row)
        for row in shard.refused:
            if row.key not in done:
                opened.journal.append(row)
                await ready.put(row)
        async with self._starting:
            for image in shard.images:
                if image.key in done:
                    continue
                size = UNKNOWN_SIZE if image.size is None else image.size
                seat = await self._room.enter(min(size, READ_WHOLE))
                if self._stopping.is_set():
                    seat.leave()
                    return
                opened.start_one()
                tasks.create_task(self._do(image, seat, opened, ready))

    async def _do(
        self, image: ListedImage, seat: Seat, shard: _OpenShard, ready: "asyncio.Queue[Row | None]"
    ) -> None:
        try:
            try:
                row = await self._images.row(image, seat)
                shard.journal.append(row)
            finally:
                seat.leave()
            await ready.put(row)
        except Stopped:
            pass  # a later run does it
        except Exception as error:  # noqa: BLE001 - whatever it is ends the batch, after what is in flight
            self._fail(error)
        finally:
            shard.end_one()

    async def _end_shard(self, shard: _OpenShard) -> None:
        """Wait for the last image of a shard and publish its part."""
        try:
            await shard.ended.wait()
            if self._state is not RunnerState.FAILED:
                await shard.journal.publish()
        except Exception as error:  # noqa: BLE001 - whatever it is ends the batch, after what is in flight
            self._fail(error)
        finally:
            shard.journal.close()
            self._open.release()

    def _fail(self, error: Exception) -> None:
        """End the batch by an error; the first one counts."""
        if self._failure is None:
            self._failure = error
        self._state = RunnerState.FAILED
        self._stopping.set()


async def next_shard(shards: AsyncIterator[Shard], stopping: asyncio.Event) -> Shard | None:
    """Return the next shard, or ``None`` at the end and as soon as ``stopping`` is set."""
    taking = asyncio.create_task(_next_or_none(shards))
    stopped = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({taking, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return None if stopping.is_set() else taking.result()
    finally:
        stopped.cancel()
        if not taking.done():
            taking.cancel()
            await asyncio.wait([taking])


async def _next_or_none(shards: AsyncIterator[Shard]) -> Shard | None:
    return await anext(shards, None)
