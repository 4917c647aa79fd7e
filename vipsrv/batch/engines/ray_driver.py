"""The driver of a batch on a cluster: gives shards to actors, and keeps the manifest.

::

    shards ─► Schedule ─► an actor's Node ─► rows ─► journal ─► whoever iterates
                 ▲                             │         └─► the shard's last row: its part
                 └── died: what is left ◄──────┘

The driver is the only one that writes the manifest: of two rows of an image, one of them from an actor that
was thought dead or slow, the first counts everywhere. It never sees an image. If it is killed, its actors
end, and the same command goes on: what had a row is in the journals on the driver's machine.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any

from vipsrv.batch.engines.interface import Shard, Work
from vipsrv.batch.engines.ray_actors import Actors, Placement, error_of
from vipsrv.batch.engines.ray_connection import RayConnection
from vipsrv.batch.engines.ray_node import NodeWork, Report
from vipsrv.batch.engines.scheduling import STOPPING_SECONDS, Assignment, Schedule
from vipsrv.batch.manifest.manifest import Manifest
from vipsrv.batch.rows import Row
from vipsrv.batch.shard_record import JournaledShard, ShardRecord
from vipsrv.errors import BatchError, ConnectFailed, ServerLost, StartFailed

ROWS_WAITING = 1000
"""With more rows that wait for whoever takes them, the driver reads no further ones from the actors."""

PROBE_IMAGES = 5
"""Images that a new actor looks for, so that it is known that it sees the driver's source."""

LOOK_SECONDS = 5.0
"""How often the schedule is asked although nothing has happened: a shard may be stuck."""

PUBLISHING = 8
"""Parts that are written at the same time."""

PROOF = ".vipsrv/ray"
"""The key at the destination under which the driver writes the run's id, for the actors to find."""

NO_SERVER = (ServerLost, ConnectFailed, StartFailed)
"""What an actor raises that has lost its own server: it cannot work, and others can."""

_log = logging.getLogger("vipsrv.batch")


class Driver:
    """Drives one batch. All its methods belong to the thread of its event loop."""

    def __init__(self, work: Work, connection: RayConnection, placement: Placement) -> None:
        self._work = work
        self._connection = connection
        self._placement = placement
        self._begin_record = JournaledShard.beginner(Manifest(work.destination), work.outputs)
        self._schedule = Schedule()
        self._records: dict[str, ShardRecord] = {}  # of open shards
        self._handles: dict[str, Any] = {}  # of actors that can work
        self._in_flight: dict[str, int] = {}
        self._failure: BaseException | None = None
        self._changed = asyncio.Event()
        self._ready: asyncio.Queue[Row | None] = asyncio.Queue()
        self._room = asyncio.Event()  # there are few rows in it
        self._room.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._publishing: set[asyncio.Task[None]] = set()
        self._publishers = asyncio.Semaphore(PUBLISHING)
        self._taking: asyncio.Task[None] | None = None

    @property
    def in_flight(self) -> int:
        """Images that actors work on, as they have told with their last rows."""
        return sum(self._in_flight.values())

    def stop(self) -> None:
        """Give out no further shard, and have the actors send no further image."""
        self._schedule.stop(time.monotonic())
        for handle in self._handles.values():
            handle.stop.remote()
        self._changed.set()

    async def rows(self, first: Shard, shards: AsyncIterator[Shard]) -> AsyncGenerator[Row, None]:
        """Drive the batch to its end. Raises what ends it early, after all rows."""
        driving = asyncio.create_task(self._drive(first, shards))
        try:
            while (row := await self._ready.get()) is not None:
                if self._ready.qsize() < ROWS_WAITING:
                    self._room.set()
                yield row
            await driving
            if self._failure is not None:
                raise self._failure
        finally:
            driving.cancel()
            await asyncio.wait([driving])

    async def _drive(self, first: Shard, shards: AsyncIterator[Shard]) -> None:
        """Do all shards, then put the ``None`` that ends the rows."""
        work = self._work
        actors: Actors | None = None
        try:
            await work.destination.write(PROOF, work.run.encode())
            actors = Actors(
                self._connection,
                self._placement,
                NodeWork.of(work, proof=PROOF),
                work.source,
                first.images[:PROBE_IMAGES],
                on_ready=self._actor_ready,
                on_death=self._actor_died,
                on_failure=self._fail,
            )
            self._start(actors.run())
            self._open(first)
            while not self._schedule.complete:
                self._changed.clear()
                if self._schedule.wanted and self._taking is None:
                    self._taking = self._start(self._take(shards))
                for assignment in self._schedule.assignments(time.monotonic()):
                    handle = self._handles[assignment.actor]
                    self._start(self._follow(assignment, handle, actors))
                await self._wait()
                for actor in self._schedule.give_up(time.monotonic()):
                    _log.warning(
                        "%s has sent no row for %g s and is not waited for: the next run does its images",
                        actor,
                        STOPPING_SECONDS,
                    )
        except Exception as error:  # noqa: BLE001 - whatever it is ends the batch
            self._fail(error)
        finally:
            await self._end(actors)
        self._ready.put_nowait(None)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            pass  # the schedule looks at the time

    async def _take(self, shards: AsyncIterator[Shard]) -> None:
        """Take the next shard."""
        await self._room.wait()
        shard = await anext(shards, None)
        if shard is None:
            self._schedule.no_more_shards()
        else:
            self._open(shard)
        self._taking = None
        self._changed.set()

    def _open(self, shard: Shard) -> None:
        """Begin the record of a shard, and have it done."""
        record = self._records[shard.name] = self._begin_record(shard.name)
        self._schedule.add_shard(shard)
        for row in shard.refused:
            record.append(row)
            self._give(row)
        if not shard.images:
            self._publish(shard.name)

    async def _follow(self, assignment: Assignment, handle: Any, actors: Actors) -> None:
        """Have an actor do an assignment, and take its rows."""
        errors = self._connection.ray.exceptions
        calls = handle.run.options(num_returns="streaming")
        try:
            async for reference in calls.remote(assignment.number, assignment.shard):
                report: Report = await reference
                self._in_flight[assignment.actor] = report.in_flight
                for row in report.rows:
                    self._take_row(assignment, row)
                await self._room.wait()
        except errors.RayTaskError as error:
            cause = error_of(error)
            if isinstance(cause, NO_SERVER):
                _log.warning("%s has lost its server: %s", assignment.actor, cause)
                actors.end(assignment.actor)
                return  # as below
            self._fail(cause)
        except errors.RayError:
            actors.end(assignment.actor)
            return  # what it has left is given out again once its death is known
        except Exception as error:  # noqa: BLE001 - the journal cannot be written, for example
            self._fail(error)
        self._schedule.ended(assignment)
        self._changed.set()

    def _take_row(self, assignment: Assignment, row: Row) -> None:
        """Keep a row if it is the first one of its image."""
        name = assignment.shard.name
        if not self._schedule.has_row(assignment, row.key, time.monotonic()):
            return
        self._records[name].append(row)
        needless = self._schedule.close_if_done(name)
        if needless is not None:
            for other in needless:
                if other != assignment and other.actor in self._handles:
                    self._handles[other.actor].cancel.remote(other.number)
            self._publish(name)
            self._changed.set()
        self._give(row)

    def _give(self, row: Row) -> None:
        """Give a row to whoever iterates, at once: a row that is in the manifest must not get lost."""
        self._ready.put_nowait(row)
        if self._ready.qsize() >= ROWS_WAITING:
            self._room.clear()

    def _publish(self, name: str) -> None:
        """Make a part of the rows of a shard, beside everything else."""

        async def publish(record: ShardRecord) -> None:
            try:
                async with self._publishers:
                    await record.publish()
            finally:
                record.close()

        self._publishing.add(self._start(publish(self._records.pop(name))))

    def _actor_ready(self, name: str, handle: Any) -> None:
        self._handles[name] = handle
        self._schedule.add_actor(name)
        self._changed.set()

    def _actor_died(self, name: str, reason: str) -> None:
        del self._handles[name]
        self._in_flight.pop(name, None)
        try:
            self._schedule.actor_died(name, reason)
        except BatchError as error:
            self._fail(error)
        self._changed.set()

    def _fail(self, error: BaseException) -> None:
        """End the batch by an error, after what is in flight; the first one counts."""
        if self._failure is None:
            self._failure = error
        self.stop()

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run something beside the others; an error of it ends the batch."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._publishing.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(error)

    async def _end(self, actors: Actors | None) -> None:
        """Publish what was stopped in the middle, and end the actors."""
        others = self._tasks - self._publishing
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)
        if actors is not None:
            await actors.close()
        self._in_flight.clear()
        if self._failure is None:
            for name in list(self._records):
                self._publish(name)
        while self._publishing:
            await asyncio.wait(self._publishing)
        for record in self._records.values():
            record.close()
        with suppress(OSError, BatchError):  # the next run writes another one over it
            await self._work.destination.remove(PROOF)
