"""The engine for a cluster: it gives shards to actors on the nodes, which have a server each."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from vipsrv.batch.engines.interface import Shard, Work
from vipsrv.batch.engines.ray_actors import Placement
from vipsrv.batch.engines.ray_connection import RayConnection
from vipsrv.batch.engines.ray_driver import Driver
from vipsrv.batch.engines.stop_request import StopRequest
from vipsrv.batch.rows import Row
from vipsrv.batch.shard_runner import next_shard


class RayEngine:
    """Does the work of a batch on the nodes of a Ray cluster.

    ``address`` is that of a cluster (``HOST:PORT`` or ``auto``); without it, and without the variable
    ``RAY_ADDRESS``, a Ray is started on this machine, and ends with ``rows``. There is an actor a node with
    all its cores, now and when nodes join, or at most ``actors`` of them, with ``actor_cpus`` cores each.
    """

    def __init__(
        self,
        work: Work,
        *,
        address: str | None = None,
        actors: int | None = None,
        actor_cpus: int | None = None,
    ) -> None:
        self._work = work
        self._address = address
        self._placement = Placement(actors, actor_cpus)
        self._driver: Driver | None = None
        self._stop = StopRequest(self._stop_sending)

    @property
    def in_flight(self) -> int:
        """How many images are being read, resized or written, by what the actors have told last."""
        return 0 if self._driver is None else self._driver.in_flight

    async def rows(self, shards: AsyncIterator[Shard]) -> AsyncGenerator[Row, None]:
        """Resize the images of all shards and yield their rows as they arrive.

        Ray starts with the first shard. Raises ``BatchError`` and what else ends a batch.
        """
        self._stop.enter_loop()
        first = await next_shard(shards, self._stop.asked)
        if first is None:
            return
        connection = await RayConnection.open(self._address, cpus=self._placement.cpus_here)
        try:
            if self._stop.asked.is_set():
                return
            self._driver = Driver(self._work, connection, self._placement)
            async with aclosing(self._driver.rows(first, shards)) as rows:
                async for row in rows:
                    yield row
        finally:
            await connection.close()

    def stop(self) -> None:
        """Send no further image; ``rows`` ends after those in flight. May be called from any thread."""
        self._stop.send()

    def _stop_sending(self) -> None:
        if self._driver is not None:
            self._driver.stop()
