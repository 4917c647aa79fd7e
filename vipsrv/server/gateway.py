"""The server as a whole: listeners, start, drain, stop. It never decodes: nothing in an image can hurt it."""

import asyncio
import errno
import logging
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vipsrv.address import Address
from vipsrv.errors import StartFailed
from vipsrv.options import Fit
from vipsrv.server.admission import Admission
from vipsrv.server.cpus import available_cpus
from vipsrv.server.session import Session
from vipsrv.server.settings import ServerSettings
from vipsrv.storage.spool import Spool
from vipsrv.version import __version__
from vipsrv.workers.job import Job
from vipsrv.workers.pool import WorkerPool

WATCH_SECONDS = 0.1
"""How often deadlines and timeouts are looked at: what they are late by, at the most."""

FAREWELL_SECONDS = 1.0
"""How long the last replies may take to leave when the server stops."""

_BACKLOG = 4096

_log = logging.getLogger(__name__)


class Gateway:
    """One server within an event loop: ``start``, then ``drain`` and ``stop``."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._sessions: set[Session] = set()
        self._turned_away: set[Session] = set()
        self._no_sessions = asyncio.Event()
        self._no_sessions.set()
        self.draining = False
        self.spool = Spool(
            directory=settings.spool_dir, memory=settings.spool_memory, disk=settings.spool_disk
        )
        self._pool = WorkerPool(
            self.spool,
            settings.worker_config(),
            size=settings.workers,
            on_idle=self._worker_idle,
            on_heavy=self._job_is_heavy,
            pinned=settings.pin_workers,
        )
        self.admission = Admission(
            self._pool, limit=settings.queue, memory=settings.decode_memory, cores=available_cpus()
        )
        self._servers: list[asyncio.Server] = []
        self._unix_paths: list[Path] = []
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> list[Address]:
        """Start the workers and listen; gives the addresses with their real ports. Raises ``StartFailed``."""
        if not os.access(self.settings.spool_dir, os.W_OK | os.X_OK):
            raise StartFailed(
                f"the spool folder {self.settings.spool_dir} cannot be written; name another by --spool-dir"
            )
        try:
            wanted = [Address.parse(text) for text in self.settings.listen]
        except ValueError as error:
            raise StartFailed(f"--listen: {error}") from None
        try:
            # Binding comes first: that a port is taken is told sooner than workers start.
            servers = [
                (address, await self._bind(address))
                for address in wanted or [Address(self.settings.host, self.settings.port)]
            ]
            self._watching = asyncio.get_running_loop().create_task(self._watch())
            await self._pool.start()
            for address, server in servers:
                with _listening_on(address):
                    await server.start_serving()
        except StartFailed:
            await self.stop()
            raise
        return [real for address, server in servers for real in _real_addresses(address, server)]

    async def drain(self) -> None:
        """Accept nothing new and wait, at most ``settings.drain`` seconds, for what is in flight."""
        self.draining = True
        self._stop_listening()
        for session in list(self._sessions):
            session.drain()
        await self._sessions_closed(self.settings.drain)

    async def stop(self) -> None:
        """End everything now; who still waits is told so."""
        self.draining = True
        self._stop_listening()
        for session in list(self._sessions):
            session.stop()
        await self._sessions_closed(FAREWELL_SECONDS)
        for session in list(self._sessions):
            session.abort()
        if self._watching is not None:
            self._watching.cancel()
        await self._pool.stop()
        await asyncio.to_thread(self.spool.close)

    def hello(self) -> dict[str, Any]:
        """The meta of the reply to a HELLO."""
        formats = self._pool.formats
        worker = self.settings.worker_config()
        return {
            "server": f"vipsrv/{__version__}",
            "limits": {
                "max_upload": int(self.settings.max_upload),
                "max_pixels": worker.max_pixels,
                "max_output_pixels": worker.max_output_pixels,
                "deadline_ms": int(self.settings.deadline * 1000),
            },
            "formats": {"in": list(formats.readers), "out": list(formats.writers)},
            "libraries": formats.readers,
            "fits": list(Fit),
        }

    @property
    def connections(self) -> int:
        """How many clients are connected, but for those that were turned away."""
        return len(self._sessions) - len(self._turned_away)

    def turn_away(self, session: Session) -> bool:
        """Count a client that is one too many no more; whether there is time to tell it so.

        They linger for seconds, and are bounded by the same number.
        """
        self._turned_away.add(session)
        return len(self._turned_away) <= self.settings.connections

    def session_opened(self, session: Session) -> None:
        """A client has connected."""
        self._sessions.add(session)
        self._no_sessions.clear()

    def session_closed(self, session: Session) -> None:
        """A client has gone, or was made to."""
        self._sessions.discard(session)
        self._turned_away.discard(session)
        if not self._sessions:
            self._no_sessions.set()

    async def _sessions_closed(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._no_sessions.wait(), seconds)

    def _worker_idle(self) -> None:
        self.admission.worker_idle()

    def _job_is_heavy(self, job: Job) -> None:
        self.admission.heavy(job)

    async def _bind(self, address: Address) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        with _listening_on(address):
            if address.path:
                path = Path(address.path)
                _remove_stale_socket(path)
                server = await loop.create_unix_server(
                    lambda: Session(self), address.path, backlog=_BACKLOG, start_serving=False
                )
                self._unix_paths.append(path)
            else:
                server = await loop.create_server(
                    lambda: Session(self), address.host, address.port, backlog=_BACKLOG, start_serving=False
                )
        self._servers.append(server)
        return server

    def _stop_listening(self) -> None:
        for server in self._servers:
            server.close()
        self._servers = []
        for path in self._unix_paths:
            path.unlink(missing_ok=True)
        self._unix_paths = []

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now = time.monotonic()
            watched: list[WorkerPool | Admission | Session] = [self._pool, self.admission, *self._sessions]
            for one in watched:
                try:
                    one.watch(now)
                except Exception:  # noqa: BLE001 - a bug must not be the end of every deadline and timeout
                    _log.exception("the clock of %r was not looked at", one)


@contextmanager
def _listening_on(address: Address) -> Iterator[None]:
    try:
        yield
    except socket.gaierror as error:  # its numbers are not those of `os.strerror`
        reason = str(error.strerror)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
    except UnicodeError:
        reason = "no host can have this name"
    else:
        return
    raise StartFailed(f"cannot listen on {address}: {reason}; choose another address") from None


def _real_addresses(address: Address, server: asyncio.Server) -> list[Address]:
    if address.path:
        return [address]
    return [Address(*sock.getsockname()[:2]) for sock in server.sockets]


def _remove_stale_socket(path: Path) -> None:
    """Remove a socket that nobody listens on any more, and nothing else. Raises ``OSError``."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # one whose backlog is full would have us wait
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
