"""What runs in each actor: a server of its own for the actor's cores, and the shards that the driver sends.

::

    driver ── shard (keys) ──► Node ──► ShardRunner ──► the actor's server, by a unix socket
           ◄── rows ──────────            ▲     └─────► results to the destination
                                          └── images from the source

The images go from the storage to the server and to the storage, never to the driver. This module does not
import Ray: the class becomes an actor where the driver hands it to ``ray.remote``.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, ExitStack, aclosing
from dataclasses import dataclass, replace

from vipsrv.batch.engines.interface import Shard, Work
from vipsrv.batch.engines.own_cores import ServerOnCores, take_cores
from vipsrv.batch.engines.scratch_folder import scratch_folder
from vipsrv.batch.images import ListedImage
from vipsrv.batch.outputs import Outputs
from vipsrv.batch.rows import Row
from vipsrv.batch.shard_record import UnrecordedShard
from vipsrv.batch.shard_runner import ShardRunner
from vipsrv.batch.stores.interface import Destination, Source
from vipsrv.batch.stores.open_store import open_destination, open_source
from vipsrv.client import AsyncClient, Retry
from vipsrv.client.window import Window
from vipsrv.errors import StorageFailed
from vipsrv.version import __version__

MOST_ROWS = 100
"""Rows that are sent to the driver together: their message stays under the 100 KiB that Ray sends inline."""

SEND_SECONDS = 0.2
"""How long a row waits for others to be sent with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeWork:
    """What each actor is told at its start: where images come from and go to, and what is made of them.

    ``proof`` is the key at the destination under which the driver has written the id of the run.
    """

    source: str
    destination: str
    proof: str
    outputs: Outputs
    run: str
    attempts: int
    deadline_ms: int | None

    @classmethod
    def of(cls, work: Work, *, proof: str) -> "NodeWork":
        """Return what an actor needs of a driver's work."""
        return cls(
            source=work.source.url,
            destination=work.destination.url,
            outputs=work.outputs,
            run=work.run,
            proof=proof,
            attempts=work.attempts,
            deadline_ms=work.deadline_ms,
        )

    def open(self) -> Work:
        """Open the source and the destination. Raises ``StorageFailed`` and ``ValueError``."""
        return Work(
            source=open_source(self.source),
            destination=open_destination(self.destination),
            outputs=self.outputs,
            run=self.run,
            attempts=self.attempts,
            deadline_ms=self.deadline_ms,
        )


@dataclass(frozen=True, slots=True)
class Report:
    """Some rows of an assignment, and how many images the actor works on."""

    rows: list[Row]
    in_flight: int


class Node:
    """The actor. The driver calls ``version`` and ``start`` first, and ``close`` last."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._runner: ShardRunner | None = None
        self._running: dict[int, asyncio.Task[None]] = {}
        self._closed = asyncio.Event()
        self._work: Work | None = None

    async def version(self) -> tuple[str, str]:
        """Return the version of vipsrv here, and the name of this machine."""
        return __version__, socket.gethostname()

    async def start(self, work: NodeWork, workers: int) -> None:
        """Open the storage and start the server, with so many workers.

        Raises ``BatchError`` and ``StartFailed``.
        """
        opened = self._work = work.open()
        self._stack.push_async_callback(opened.source.close)
        self._stack.push_async_callback(opened.destination.close)
        await _check_destination(opened.destination, work)
        folder = self._stack.enter_context(scratch_folder())
        cores = take_cores(workers, self._stack.enter_context(ExitStack()))
        server = ServerOnCores(cores, path=folder / "server", workers=workers)
        client = await self._stack.enter_async_context(
            AsyncClient.embedded(server=server, retry=Retry.none())  # see image_work.py
        )
        limits = (await client.hello()).limits
        # As for one worker more: with one, so few requests are in flight that client and gateway wake up for
        # each alone, which takes 12 % more CPU time an image (6 KB each, two actors with a core each).
        window = Window(replace(limits, workers=workers + 1))
        self._runner = ShardRunner(opened, client, window, begin_record=UnrecordedShard)

    async def missing(self, images: tuple[ListedImage, ...]) -> tuple[ListedImage, ...]:
        """Return which of some images the source does not have, as seen from here."""
        if self._work is None:
            raise RuntimeError("the actor has not been started")
        source = self._work.source
        return tuple([image for image in images if not await has_image(source, image)])

    async def lifetime(self) -> None:
        """Return when the actor is closed. If it dies, the caller gets Ray's error at once."""
        await self._closed.wait()

    async def run(self, number: int, shard: Shard) -> AsyncGenerator[Report, None]:
        """Do a shard and yield its rows, some at a time. ``number`` is the assignment's, for ``cancel``.

        Raises what ends the batch.
        """
        rows = RowBatches()
        runner = self._started()
        work = asyncio.create_task(_collect(runner, shard, rows))
        self._running[number] = work
        try:
            while batch := await rows.next():
                yield Report(batch, runner.in_flight)
            await asyncio.wait([work])
            if not work.cancelled():
                work.result()
        finally:
            del self._running[number]
            work.cancel()
            await asyncio.wait([work])

    async def cancel(self, number: int) -> None:
        """End an assignment at once: another actor has done its images."""
        work = self._running.get(number)
        if work is not None:
            work.cancel()

    async def stop(self) -> None:
        """Send no further image to the server; the assignments end after the images in flight."""
        if self._runner is not None:
            self._runner.stop()

    async def close(self) -> None:
        """End what runs, stop the server and release the storage."""
        running = list(self._running.values())
        for work in running:
            work.cancel()
        if running:
            await asyncio.wait(running)
        await self._stack.aclose()
        self._closed.set()

    def _started(self) -> ShardRunner:
        if self._runner is None:
            raise RuntimeError("the actor has not been started")
        return self._runner


class RowBatches:
    """Collects rows for the driver: a message for each would take more time than the row."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._ended = False
        self._filled = asyncio.Event()
        self._any = asyncio.Event()

    def add(self, row: Row) -> None:
        """Add a row."""
        self._rows.append(row)
        self._any.set()
        if len(self._rows) >= MOST_ROWS:
            self._filled.set()

    def end(self) -> None:
        """Expect no further row."""
        self._ended = True
        self._any.set()
        self._filled.set()

    async def next(self) -> list[Row]:
        """Return the next rows, once there are many or the first has waited long enough; none at the end."""
        await self._any.wait()
        if not self._ended:
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await self._filled.wait()
            except TimeoutError:
                pass  # what there is goes now
        batch, self._rows = self._rows[:MOST_ROWS], self._rows[MOST_ROWS:]
        if not self._ended:
            (self._any.set if self._rows else self._any.clear)()
            (self._filled.set if len(self._rows) >= MOST_ROWS else self._filled.clear)()
        return batch


async def _collect(runner: ShardRunner, shard: Shard, into: RowBatches) -> None:
    try:
        async with aclosing(runner.rows(_only(shard))) as rows:
            async for row in rows:
                into.add(row)
    finally:
        into.end()


async def _check_destination(destination: Destination, work: NodeWork) -> None:
    """Raise ``StorageFailed`` if this is not where the driver's results are."""
    try:
        if await destination.read(work.proof) == work.run.encode():
            return
    except FileNotFoundError:
        pass  # told below
    raise StorageFailed(
        destination.url,
        f"{socket.gethostname()} does not see what the machine of the command has written there: all nodes "
        "of the cluster must reach the same destination, such as a bucket or a shared folder",
    )


async def has_image(source: Source, image: ListedImage) -> bool:
    """Whether a source has an image that it has listed somewhere. One that cannot be read is there, too."""
    try:
        async with source.open(image):
            return True
    except FileNotFoundError:
        return False
    except OSError:
        return True


async def _only(shard: Shard) -> AsyncIterator[Shard]:
    yield shard
