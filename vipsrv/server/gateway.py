"""The server as a whole: listeners, start, drain, stop. It never decodes, so no image can harm it."""

import asyncio
import errno
import logging
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vipsrv.address import Address
from vipsrv.errors import StartFailed
from vipsrv.options import Fit
from vipsrv.server.admission import Admission
from vipsrv.server.connections.binary import BinaryConnection
from vipsrv.server.connections.proxy_header import ProxiedConnection, TrustedProxies
from vipsrv.server.context import ServerContext
from vipsrv.server.cpus import available_cpus
from vipsrv.server.descriptor_watch import DescriptorWatch
from vipsrv.server.open_connections import Connection
from vipsrv.server.settings import ServerSettings
from vipsrv.server.user import change_user
from vipsrv.storage.spool import Spool
from vipsrv.version import __version__
from vipsrv.workers.confinement import log_confinement
from vipsrv.workers.job import Job
from vipsrv.workers.policy import PoolPolicy
from vipsrv.workers.pool import WorkerPool

WATCH_SECONDS = 0.1
"""Seconds between two checks of deadlines and timeouts: their largest delay."""

FAREWELL_SECONDS = 1.0
"""Seconds that sending the last replies may take when the server stops."""

_BACKLOG = 4096
"""Connections that may wait in the kernel for each listener."""

_ACCEPTS_AT_ONCE = 64
"""asyncio takes its ``backlog`` also for how often it tries to accept in one turn of the event loop, and
reports each try that fails: with 4,096 and no descriptor left that was 65,536 reports in 3.6 s."""

_log = logging.getLogger(__name__)

MakeConnection = Callable[[], asyncio.BaseProtocol]
"""Makes the connection for a client that has connected to a listener."""


class Gateway:
    """One server within an event loop: ``start``, then ``drain`` and ``stop``."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._spool = Spool(
            directory=settings.spool_dir, memory=settings.spool_memory, disk=settings.spool_disk
        )
        self._pool = WorkerPool(
            self._spool,
            settings.worker_config(),
            size=settings.workers,
            on_idle=self._worker_idle,
            on_heavy=self._job_is_heavy,
            pinned=settings.pin_workers,
            policy=PoolPolicy(max_jobs=settings.jobs_per_worker),
        )
        self._admission = Admission(
            self._pool,
            limit=settings.queue,
            per_client=settings.client_queue,
            memory=settings.decode_memory,
            cores=available_cpus(),
        )
        self._context = ServerContext(
            settings=settings,
            spool=self._spool,
            admission=self._admission,
            describe=self._describe,
            check_ready=self._pool.check_ready,
        )
        self._servers: list[asyncio.Server] = []
        self._unix_sockets: list[_UnixSocket] = []
        self._descriptors = DescriptorWatch()
        self._watching: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """The number of connected clients, without excess ones that were refused."""
        return self._context.connections.served

    async def start(self) -> list[Address]:
        """Start the workers and listen; return the addresses, with real ports. Raises ``StartFailed``."""
        wanted = self._listeners()
        asyncio.get_running_loop().set_exception_handler(self._descriptors.handle)
        try:
            # Bind first: a port in use is found out faster than workers start.
            servers = [(address, await self._bind(address, make)) for address, make in wanted]
            if self._settings.user is not None:
                change_user(self._settings.user)
            self._check_spool_folder()
            self._watching = asyncio.get_running_loop().create_task(self._watch())
            await self._pool.start()
            log_confinement(self._pool.formats.layers)
            for address, server in servers:
                with _listening_on(address):
                    await server.start_serving()
                    for sock in server.sockets:
                        _enlarge_backlog(sock.fileno())
        except StartFailed:
            await self.stop()
            raise
        return [real for address, server in servers for real in _real_addresses(address, server)]

    def _check_spool_folder(self) -> None:
        folder = self._settings.spool_dir
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StartFailed(f"the spool folder {folder} is not writable; choose another with --spool-dir")

    async def drain(self) -> None:
        """Accept no new requests, and wait up to ``settings.drain`` seconds for those in flight."""
        self._context.draining = True
        self._stop_listening()
        for connection in self._context.connections:
            connection.drain()
        await self._context.connections.wait_until_closed(self._settings.drain)

    async def stop(self) -> None:
        """Stop at once; clients that still wait get ``Draining``."""
        self._context.draining = True
        self._stop_listening()
        for connection in self._context.connections:
            connection.stop()
        await self._context.connections.wait_until_closed(FAREWELL_SECONDS)
        for connection in self._context.connections:
            connection.abort()
        if self._watching is not None:
            self._watching.cancel()
        await self._pool.stop()
        await asyncio.to_thread(self._spool.close)

    def _listeners(self) -> list[tuple[Address, MakeConnection]]:
        """Return every address to listen on, with the factory of its connections. Raises ``StartFailed``."""
        settings = self._settings
        try:
            addresses = [Address.parse(text) for text in settings.listen]
        except ValueError as error:
            raise StartFailed(f"--listen: {error}") from None
        connection: MakeConnection = partial(BinaryConnection, self._context)
        trusted = TrustedProxies(settings.trusted_proxies)
        if trusted:
            connection = partial(ProxiedConnection, self._context, trusted, self._connection_of)
        return [(address, connection) for address in addresses or [Address(settings.host, settings.port)]]

    def _connection_of(self, peer: object) -> BinaryConnection:
        return BinaryConnection(self._context, peer=peer)

    def _describe(self) -> dict[str, Any]:
        """Return the meta of the reply to a HELLO."""
        settings, formats = self._settings, self._pool.formats
        worker = settings.worker_config()
        return {
            "server": f"vipsrv/{__version__}",
            "limits": {
                "max_upload": int(settings.max_upload),
                "max_pixels": worker.max_pixels,
                "max_output_pixels": worker.max_output_pixels,
                "deadline_ms": int(settings.deadline * 1000),
            },
            "formats": {"in": list(formats.readers), "out": list(formats.writers)},
            "libraries": formats.readers,
            "fits": list(Fit),
        }

    def _worker_idle(self) -> None:
        self._admission.worker_idle()

    def _job_is_heavy(self, job: Job) -> None:
        self._admission.requeue_as_heavy(job)

    async def _bind(self, address: Address, make_connection: MakeConnection) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        with _listening_on(address):
            if address.path:
                path = Path(address.path)
                _remove_stale_socket(path)
                server = await loop.create_unix_server(
                    make_connection, address.path, backlog=_ACCEPTS_AT_ONCE, start_serving=False
                )
                self._unix_sockets.append(_UnixSocket.at(path))
            else:
                server = await loop.create_server(
                    make_connection, address.host, address.port, backlog=_ACCEPTS_AT_ONCE, start_serving=False
                )
        self._servers.append(server)
        return server

    def _stop_listening(self) -> None:
        # Before they are closed: another server takes the place of a socket on which none listens.
        for unix_socket in self._unix_sockets:
            unix_socket.remove()
        self._unix_sockets = []
        for server in self._servers:
            server.close()
        self._servers = []

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self._descriptors.check()
            self._context.accounts.forget_unused()
            now = time.monotonic()
            # Connections last: they fail only the requests that pool and admission do not check.
            check_timeouts([self._pool, self._admission, *self._context.connections.due(now)], now)


def check_timeouts(watched: list[WorkerPool | Admission | Connection], now: float) -> None:
    """Make each of ``watched`` check its deadlines and timeouts. A bug in one must not stop the others."""
    for one in watched:
        try:
            one.watch(now)
        except Exception:  # noqa: BLE001 - logged with its traceback
            _log.exception("the deadlines and timeouts of %r could not be checked", one)


@contextmanager
def _listening_on(address: Address) -> Iterator[None]:
    """Turn errors of listening on an address into ``StartFailed``."""
    try:
        yield
    except socket.gaierror as error:  # its numbers are not those of `os.strerror`
        reason = str(error.strerror)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
    except UnicodeError:
        reason = "not a valid host name"
    else:
        return
    raise StartFailed(f"cannot listen on {address}: {reason}; choose another address") from None


def _enlarge_backlog(listener: int) -> None:
    """Let more connections wait for a listening socket than are accepted at once. Raises ``OSError``."""
    with socket.socket(fileno=os.dup(listener)) as own:
        own.listen(_BACKLOG)


def _real_addresses(address: Address, server: asyncio.Server) -> list[Address]:
    if address.path:
        return [address]
    return [Address(*sock.getsockname()[:2]) for sock in server.sockets]


@dataclass(frozen=True, slots=True)
class _UnixSocket:
    """The file of a unix socket that this server has made."""

    path: Path
    device: int
    inode: int

    @classmethod
    def at(cls, path: Path) -> "_UnixSocket":
        """Return the file that is at ``path`` now. Raises ``OSError``."""
        status = path.stat()
        return cls(path, status.st_dev, status.st_ino)

    def remove(self) -> None:
        """Remove it, but no other file that has been put in its place."""
        try:
            if _UnixSocket.at(self.path) == self:
                self.path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.warning("the socket %s cannot be removed: %s", self.path, error.strerror)


def _remove_stale_socket(path: Path) -> None:
    """Remove a unix socket on which no process listens, and no other file. Raises ``OSError``."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # connecting would block if the listener's backlog is full
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
