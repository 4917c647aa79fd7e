"""The actors of a batch: on which nodes they run, and what happens when one dies.

::

    place ──► actor ──► version, storage, server: checked ──► ready ──► dead ──► another one at the place
      ▲
      └── a node that is there or joins, or one of ``actors`` for which Ray finds a node

Ray's autoscaler adds nodes for actors that fit on none, so ``actors`` is also how far it grows the cluster.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vipsrv.batch.engines.ray_connection import ClusterNode, RayConnection
from vipsrv.batch.engines.ray_node import Node, NodeWork, has_image
from vipsrv.batch.images import ListedImage
from vipsrv.batch.stores.interface import Source
from vipsrv.errors import BatchError, StorageFailed, VipsrvError
from vipsrv.version import __version__

LOOK_SECONDS = 3.0
"""How often the driver looks for nodes that have joined."""

AGAIN_SECONDS = 1.0
"""How long a place stays empty after its actor has died. It doubles with each that cannot start."""

LONGEST_PAUSE = 60.0
"""Seconds: the most that this grows to."""

WAITING_SECONDS = 30.0
"""How long it takes until it is said that no actor could be placed yet."""

MOST_FAILED_STARTS = 3
"""Actors that may die at the start, one after another, before any was ready; then the batch stops."""

CLOSE_SECONDS = 10.0
"""How long an actor may take to stop its server."""

_log = logging.getLogger("vipsrv.batch")


@dataclass(frozen=True, slots=True)
class Placement:
    """How many actors there are to be, and the cores of each: ``None`` is one actor a node, all its cores."""

    actors: int | None = None
    cpus: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("actors", self.actors), ("actor_cpus", self.cpus)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: must be from 1, not {value}")

    @property
    def cpus_here(self) -> int | None:
        """The cores that a Ray of our own is to offer for all actors; ``None`` for those there are."""
        wanted = (self.actors or 1) * (self.cpus or 1)
        return wanted if wanted > (os.cpu_count() or 1) else None

    def cpus_of_each(self, nodes: list[ClusterNode], *, own: bool) -> int:
        """Return the cores of an actor, with a number of actors.

        In a cluster an actor has a whole node, and on this machine alone its share.
        """
        if self.cpus is not None:
            return self.cpus
        smallest = min((node.cpus for node in nodes), default=1)
        return max(1, smallest // (self.actors or 1)) if own else smallest


class Actors:
    """Keeps an actor at each place, for one batch.

    ``on_ready`` gets the name and the handle of an actor that can work, ``on_death`` the name and the reason,
    ``on_failure`` an error that ends the batch. ``images`` are the first ones of the batch: an actor that
    sees none of them, although they are there, has another storage than the driver.
    """

    def __init__(
        self,
        connection: RayConnection,
        placement: Placement,
        work: NodeWork,
        source: Source,
        images: tuple[ListedImage, ...],
        *,
        on_ready: Callable[[str, Any], None],
        on_death: Callable[[str, str], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._ray = connection.ray
        self._connection = connection
        self._placement = placement
        self._work = work
        self._source = source
        self._images = images
        self._on_ready, self._on_death, self._on_failure = on_ready, on_death, on_failure
        self._actor_class = self._ray.remote(Node)
        self._places: dict[str, asyncio.Task[None]] = {}
        self._handles: dict[str, Any] = {}
        self._alive: set[str] = set()  # the ids of the nodes
        self._made = 0
        self._ready_ever = False
        self._failed_starts = 0

    async def run(self) -> None:
        """Look after the places until cancelled. Raises ``BatchError`` if there are none."""
        nodes = await self._connection.nodes()
        if self._placement.actors is not None:
            cpus = self._placement.cpus_of_each(nodes, own=self._connection.own)
            for number in range(self._placement.actors):
                self._add_place(f"actor {number + 1}", None, cpus)
        try:
            waited = 0.0
            while True:
                self._alive = {node.id for node in nodes}
                if self._placement.actors is None:
                    self._use(nodes)
                await asyncio.sleep(LOOK_SECONDS)
                waited += LOOK_SECONDS
                if waited >= WAITING_SECONDS and not self._handles:
                    waited = 0.0
                    self._say_waiting(nodes)
                nodes = await self._connection.nodes()
        finally:
            for place in self._places.values():
                place.cancel()
            if self._places:
                await asyncio.wait(self._places.values())

    def suspect(self, name: str) -> None:
        """End an actor whose connection has failed, if it still lives."""
        handle = self._handles.get(name)
        if handle is not None:
            self._ray.kill(handle)

    async def close(self) -> None:
        """Close all actors, so that their servers end in order. Call it after ``run`` has ended."""
        handles, self._handles = self._handles, {}
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(
                    *(_result(handle.close.remote()) for handle in handles.values()), return_exceptions=True
                )
        for handle in handles.values():
            self._ray.kill(handle)

    def _use(self, nodes: list[ClusterNode]) -> None:
        for node in nodes:
            cpus = self._placement.cpus or node.cpus
            if node.id not in self._places and cpus <= node.cpus:
                self._add_place(node.name, node.id, cpus)

    def _add_place(self, name: str, node: str | None, cpus: int) -> None:
        task = asyncio.create_task(self._keep(name, node, cpus))
        self._places[name if node is None else node] = task

    async def _keep(self, name: str, node: str | None, cpus: int) -> None:
        """Have an actor at a place, one after another."""
        pause = AGAIN_SECONDS
        while node is None or node in self._alive:
            self._made += 1
            worked = await self._live(f"{name}, the {self._made}.", node, cpus)
            pause = AGAIN_SECONDS if worked else min(LONGEST_PAUSE, 2 * pause)
            await asyncio.sleep(pause)
        del self._places[node]

    async def _live(self, name: str, node: str | None, cpus: int) -> bool:
        """Have one actor from its start to its death; return whether it could work."""
        handle = self._make(node, cpus)
        try:
            try:
                await self._start(handle, cpus)
            except Exception as error:  # noqa: BLE001 - whatever Ray raises
                self._start_failed(name, error)
                return False
            self._ready_ever = True
            self._handles[name] = handle
            _log.info("%s is ready, with a server of %d workers", name, cpus)
            self._on_ready(name, handle)
            reason = "it was closed"
            try:
                await _result(handle.lifetime.remote())
            except self._ray.exceptions.RayError as error:
                reason = " ".join(str(error).split())
            if self._handles.pop(name, None) is not None:
                _log.warning("%s has died, and another one does what it has left: %s", name, reason)
                self._on_death(name, reason)
        finally:
            if name not in self._handles:
                self._ray.kill(handle)
        return True

    def _make(self, node: str | None, cpus: int) -> Any:
        strategy: Any = "SPREAD"
        if node is not None:
            strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        # Each shard in progress and ``lifetime`` are calls that wait, so there must be room for several.
        options = {"num_cpus": cpus, "max_restarts": 0, "max_task_retries": 0, "max_concurrency": 100}
        return self._actor_class.options(scheduling_strategy=strategy, **options).remote()

    async def _start(self, handle: Any, cpus: int) -> None:
        """Check and start an actor. Raises what Ray raises, and ``BatchError``."""
        version, machine = await _result(handle.version.remote())
        if version != __version__:
            raise BatchError(
                f"{machine} has vipsrv {version}, and the machine of the command has {__version__}: results "
                "may differ; install the same version on all nodes of the cluster"
            )
        await _result(handle.start.remote(self._work, cpus))
        missing = await _result(handle.missing.remote(self._images))
        if self._images and len(missing) == len(self._images):
            for image in missing:
                if await has_image(self._source, image):
                    raise StorageFailed(
                        self._source.url,
                        f"{machine} does not see the images there, such as {image.key}: all nodes of the "
                        "cluster must reach the same source, such as a bucket or a shared folder",
                    )

    def _start_failed(self, name: str, error: Exception) -> None:
        """End the batch for an actor that could not start, unless others could."""
        cause = error_of(error)
        if "No module named 'vipsrv" in str(cause):
            cause = BatchError(
                f"{name}: vipsrv is not installed there, or is an older version: all nodes of the cluster "
                f"need vipsrv {__version__}: pip install 'vipsrv[ray]'"
            )
        if self._ready_ever:
            _log.warning("%s could not start, and others do its work: %s", name, " ".join(str(cause).split()))
            return
        self._failed_starts += 1
        if isinstance(cause, VipsrvError):
            self._on_failure(cause)
        elif self._failed_starts >= MOST_FAILED_STARTS:
            reason = " ".join(str(cause).split())
            self._on_failure(BatchError(f"{name}: {MOST_FAILED_STARTS} actors died at their start: {reason}"))

    def _say_waiting(self, nodes: list[ClusterNode]) -> None:
        there = ", ".join(f"{node.name} with {node.cpus}" for node in nodes) or "none with a core"
        _log.warning("no actor could be placed yet: the cores may be in use; nodes: %s", there)


async def _result(reference: Any) -> Any:
    """Wait for the result of a call of an actor."""
    return await reference


def error_of(error: BaseException) -> BaseException:
    """Return what an actor has raised, out of the error that Ray raises here."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error
