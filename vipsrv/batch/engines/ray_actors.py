"""The actors of a batch: on which nodes they run, and what happens when one dies.

::

    place ──► actor ──► version, storage, server: checked ──► ready ──► dead ──► another one at the place
      ▲                                              └─ no: the place is useless, until a later actor works
      └── a node that is there or joins, or one of ``actors`` for which Ray finds a node

One useless place costs a warning; when all places are, the batch ends.
Ray's autoscaler adds nodes for actors that fit on none, so ``actors`` is also how far it grows the cluster.
"""

import asyncio
import logging
import os
from collections import Counter
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
"""How often it is said that no actor works."""

MOST_WAITING_SECONDS = 1800.0
"""Time without an actor after which the batch ends. An autoscaler takes minutes to add a node."""

START_SECONDS = 300.0
"""Time for an actor that has a node to open the storage and to start its server."""

MOST_FAILED_STARTS = 3
"""Actors of a place that may die at their start, one after another; then the place is useless."""

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
        self._died_at_start: Counter[str] = Counter()  # actors, by place
        self._useless: dict[str, BaseException] = {}  # places, and why no actor can work there

    async def run(self) -> None:
        """Look after the places until cancelled. Raises ``BatchError`` if no actor works for too long."""
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
                before, waited = waited, 0.0 if self._handles else waited + LOOK_SECONDS
                if waited // WAITING_SECONDS > before // WAITING_SECONDS:
                    self._say_waiting(nodes, waited)
                nodes = await self._connection.nodes()
        finally:
            for place in self._places.values():
                place.cancel()
            if self._places:
                await asyncio.wait(self._places.values())

    def end(self, name: str) -> None:
        """End an actor that cannot work any more, or is dead already: another one takes its place."""
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
        place = name if node is None else node
        pause = AGAIN_SECONDS
        while node is None or node in self._alive:
            self._made += 1
            worked = await self._live(place, f"{name}, the {self._made}.", node, cpus)
            pause = AGAIN_SECONDS if worked else min(LONGEST_PAUSE, 2 * pause)
            await asyncio.sleep(pause)
        del self._places[place]
        self._useless.pop(place, None)

    async def _live(self, place: str, name: str, node: str | None, cpus: int) -> bool:
        """Have one actor from its start to its death; return whether it could work."""
        handle = self._make(node, cpus)
        try:
            try:
                await self._start(handle, cpus)
            except Exception as error:  # noqa: BLE001 - whatever Ray raises
                self._start_failed(place, name, error)
                return False
            del self._died_at_start[place]
            self._useless.pop(place, None)
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
        try:
            async with asyncio.timeout(START_SECONDS):
                await _result(handle.start.remote(self._work, cpus))
                missing = await _result(handle.missing.remote(self._images))
        except TimeoutError:
            raise BatchError(
                f"{machine} has not opened the storage and started a server within {START_SECONDS:g} s"
            ) from None
        if self._images and len(missing) == len(self._images):
            for image in missing:
                if await has_image(self._source, image):
                    raise StorageFailed(
                        self._source.url,
                        f"{machine} does not see the images there, such as {image.key}: all nodes of the "
                        "cluster must reach the same source, such as a bucket or a shared folder",
                    )

    def _start_failed(self, place: str, name: str, error: Exception) -> None:
        """Take note that an actor could not start; end the batch if there is no other place."""
        cause = error_of(error)
        if "No module named 'vipsrv" in str(cause):
            cause = BatchError(
                f"{name}: vipsrv is not installed there, or is an older version: all nodes of the cluster "
                f"need vipsrv {__version__}: pip install 'vipsrv[ray]'"
            )
        reason = " ".join(str(cause).split())
        if not isinstance(cause, VipsrvError):
            self._died_at_start[place] += 1
            if self._died_at_start[place] < MOST_FAILED_STARTS:
                _log.warning("%s could not start, and another one will: %s", name, reason)
                return
            cause = BatchError(f"{name}: {MOST_FAILED_STARTS} actors died at their start: {reason}")
        self._useless[place] = cause
        if self._handles or self._useless.keys() != self._places.keys():
            _log.warning("%s could not start, and others do its work: %s", name, reason)
        else:
            self._on_failure(cause)

    def _say_waiting(self, nodes: list[ClusterNode], waited: float) -> None:
        """Say that no actor works, or end the batch if that has lasted too long. Raises ``BatchError``."""
        there = ", ".join(f"{node.name} with {node.cpus}" for node in nodes) or "none with a core"
        cpus = self._placement.cpus or "all"
        reason = f"each actor needs {cpus} cores of a node, which may be in use; nodes and cores: {there}"
        if waited >= MOST_WAITING_SECONDS:
            raise next(
                iter(self._useless.values()),
                BatchError(f"no actor could be placed for {waited / 60:.0f} minutes: {reason}"),
            )
        _log.warning("no actor works yet: %s", reason)


async def _result(reference: Any) -> Any:
    """Wait for the result of a call of an actor."""
    return await reference


def error_of(error: BaseException) -> BaseException:
    """Return what an actor has raised, out of the error that Ray raises here."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error
