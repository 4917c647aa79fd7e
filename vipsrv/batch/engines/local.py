"""The engine on one machine: a server of its own, or one that already runs."""

import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from vipsrv.address import Address, Wire
from vipsrv.batch.engines.interface import Shard, Work
from vipsrv.batch.engines.scratch_folder import scratch_folder
from vipsrv.batch.engines.stop_request import StopRequest
from vipsrv.batch.rows import Row
from vipsrv.batch.shard_runner import ShardRunner, next_shard
from vipsrv.client import AsyncClient, Retry, Timeout
from vipsrv.client.embedded import EmbeddedServer
from vipsrv.client.timeouts import PING_OF_ONE
from vipsrv.client.tls import FilePath, TlsChoice
from vipsrv.client.window import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A server that runs already: its address, and what a client needs to be let in.

    ``address`` is ``HOST:PORT``, ``tls://HOST:PORT`` or ``unix:/path``, or several of these, separated by
    commas; the rest is as for ``AsyncClient``.
    """

    address: str
    token: str | None = None
    tls: TlsChoice = False
    ca: FilePath | None = None
    cert: FilePath | None = None
    key: FilePath | None = None

    def __post_init__(self) -> None:
        self.client()  # raises ValueError before anything starts; a client connects with its first call

    def client(self) -> AsyncClient:
        """Make a client for it. Raises ``ValueError`` for an address or files that cannot be used."""
        if "," in self.address:
            return AsyncClient(
                servers=self.address.split(","),
                token=self.token,
                tls=self.tls,
                ca=self.ca,
                cert=self.cert,
                key=self.key,
                timeout=Timeout(ping=PING_OF_ONE),  # what hangs is sent again elsewhere
                retry=Retry.none(),
            )
        server = Address.parse(self.address)
        if server.wire is not Wire.BINARY:
            raise ValueError(f"server: {self.address!r} is an address for HTTP; give the one for clients")
        whole = server.tls or bool(server.path)
        return AsyncClient(
            None if whole else server.host,
            None if whole else server.port,
            address=self.address if whole else None,
            token=self.token,
            tls=self.tls,
            ca=self.ca,
            cert=self.cert,
            key=self.key,
            retry=Retry.none(),  # what is sent again is decided in image_work.py
        )


class LocalEngine:
    """Does the work of a batch over one client.

    Without a ``server`` it starts one, which is configured by the ``VIPSRV_`` variables of the environment
    and ends with ``rows``.
    """

    def __init__(self, work: Work, *, server: RunningServer | None = None) -> None:
        self._work = work
        self._server = server
        self._runner: ShardRunner | None = None
        self._stop = StopRequest(self._stop_sending)

    @property
    def in_flight(self) -> int:
        """How many images are being read, resized or written."""
        return 0 if self._runner is None else self._runner.in_flight

    async def rows(self, shards: AsyncIterator[Shard]) -> AsyncGenerator[Row, None]:
        """Resize the images of all shards and yield their rows as they end."""
        self._stop.enter_loop()
        first = await next_shard(shards, self._stop.asked)
        if first is None:
            return  # nothing to do, and no need of a server
        async with self._client() as client:
            window = Window((await client.hello()).limits, servers=len(client.servers))
            self._runner = ShardRunner(self._work, client, window)
            if self._stop.asked.is_set():
                self._runner.stop()
            async with aclosing(self._runner.rows(_with_first(first, shards))) as rows:
                async for row in rows:
                    yield row

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[AsyncClient]:
        """Give a client for the running server, or for one that is started at a unix socket.

        Only this user reaches that; each user of the machine could use a port.
        """
        if self._server is not None:
            async with self._server.client() as client:
                yield client
            return
        with scratch_folder() as folder:
            path = folder / "server" if hasattr(socket, "AF_UNIX") else None
            async with AsyncClient.embedded(server=EmbeddedServer(path=path), retry=Retry.none()) as client:
                yield client

    def stop(self) -> None:
        """Send no further image; ``rows`` ends after those in flight. May be called from any thread."""
        self._stop.send()

    def _stop_sending(self) -> None:
        if self._runner is not None:
            self._runner.stop()


async def _with_first(first: Shard, shards: AsyncIterator[Shard]) -> AsyncIterator[Shard]:
    yield first
    async for shard in shards:
        yield shard
