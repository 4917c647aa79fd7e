"""The server as a whole: listeners, start, drain, stop. It never decodes, so no image can harm it."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from vipsrv.address import Address, Wire
from vipsrv.errors import Draining, RequestError, SettingsError, StartFailed
from vipsrv.options import Fit
from vipsrv.server.access import Access, is_exposed
from vipsrv.server.address_list import AddressList
from vipsrv.server.admission import Admission
from vipsrv.server.connections.binary import BinaryConnection
from vipsrv.server.connections.proxy_header import ProxiedConnection
from vipsrv.server.connections.tls_handshake import TlsConnection, pack_refusal
from vipsrv.server.context import ServerContext
from vipsrv.server.cpus import available_cpus
from vipsrv.server.descriptor_watch import DescriptorWatch
from vipsrv.server.descriptors import current_limit, files_that_fit, fit_connections, raise_limit
from vipsrv.server.identity.shared_quotas import SharedQuotas
from vipsrv.server.listeners import Listener, Listeners
from vipsrv.server.listening_sockets import OpenListener
from vipsrv.server.logs.access_log import AccessLog
from vipsrv.server.logs.start_line import start_fields
from vipsrv.server.open_connections import Connection
from vipsrv.server.ops.snapshots import Peers, Snapshots
from vipsrv.server.reload import TakeOver, prepare_all
from vipsrv.server.settings import ServerSettings
from vipsrv.server.succession import Succession, addresses_of, may_lack_default
from vipsrv.server.systemd import Notifier, Watchdog
from vipsrv.server.tls import ServerCertificates
from vipsrv.server.uploads import Uploads
from vipsrv.server.user import change_user
from vipsrv.server.watermarks import Watermarks
from vipsrv.storage.spool import Spool
from vipsrv.version import __version__
from vipsrv.workers.confinement import log_confinement
from vipsrv.workers.job import Job
from vipsrv.workers.policy import PoolPolicy
from vipsrv.workers.pool import WorkerPool

if TYPE_CHECKING:
    from vipsrv.server.ops.load import LoadHistory
    from vipsrv.server.ops.operator import Operator
    from vipsrv.server.otel.telemetry import Telemetry

WATCH_SECONDS = 0.1
"""Seconds between two checks of deadlines and timeouts: their largest delay."""

FAREWELL_SECONDS = 1.0
"""Seconds that sending the last replies may take when the server stops."""

_log = logging.getLogger(__name__)


class _Wire(NamedTuple):
    """How clients of a wire are served: ``connect`` makes a connection, ``refusal`` packs an error of TLS."""

    connect: Callable[..., asyncio.BufferedProtocol]
    refusal: Callable[[RequestError], bytes]


class Gateway:
    """One server within an event loop: ``start``, ``announce``, then ``drain`` and ``stop``.

    It listens on the ``inherited`` sockets if there are any, and on the addresses of ``settings`` otherwise.
    The service manager is told by ``notifier``; ``on_handed_over`` is called when another server has taken
    the listeners, and this one has to ``drain``. With ``quotas`` the limits of identities hold for all
    gateways that share these; ``peers`` are the other gateways of the server, and ``number`` is which of the
    ``gateways`` this is, counted from 0.
    """

    def __init__(
        self,
        settings: ServerSettings,
        access_log: AccessLog | None = None,
        *,
        inherited: Sequence[OpenListener] = (),
        notifier: Notifier | None = None,
        on_handed_over: Callable[[], None] | None = None,
        quotas: SharedQuotas | None = None,
        peers: Peers | None = None,
        number: int | None = None,
        gateways: int = 1,
    ) -> None:
        self._settings = settings
        self._number = number
        self._gateways = gateways
        self.snapshots = Snapshots(peers)
        """The figures of this gateway by name, for itself and for the others."""
        self._notifier = notifier or Notifier(None)
        self._on_handed_over = on_handed_over
        self._access = Access.of(settings, quotas)
        self._watermarks = Watermarks(settings)
        self._spool = Spool(
            directory=settings.spool_dir,
            memory=settings.spool_memory,
            disk=settings.spool_disk,
            files=files_that_fit(settings, current_limit()),
        )
        self._uploads = Uploads(self._spool, settings, shared=gateways > 1)
        self._pool = WorkerPool(
            self._spool,
            self._watermarks.config(settings),
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
            uploads=self._uploads,
            admission=self._admission,
            describe=self._describe,
            check_ready=self._check_ready,
            access=self._access,
            access_log=access_log or AccessLog(),
        )
        self._wires = {Wire.BINARY: _Wire(partial(BinaryConnection, self._context), pack_refusal)}
        self._trusted_proxies = AddressList(settings.trusted_proxies)
        self._watchdog: Watchdog | None = None
        self._listeners = Listeners()
        self._succession = Succession(self._listeners, inherited, self._handed_over, self._uploads.share)
        self._borrowed: dict[int, list[Listener]] = {}  # by the number of the gateway that owns them
        self._certificates: ServerCertificates | None = None  # without a listener that needs them
        self._descriptors = DescriptorWatch()
        self._watching: asyncio.Task[None] | None = None
        self._telemetry: Telemetry | None = None
        self._operator: Operator | None = None  # without a listener for one, it keeps no figures
        if settings.ops_address is not None:
            self._operator = self._make_operator(gateways)

    @property
    def connections(self) -> int:
        """The number of connected clients, without excess ones that were refused."""
        return self._context.connections.served

    @property
    def takes_over(self) -> bool:
        """Whether it has the listeners of a server whose place it takes."""
        return self._succession.takes_over

    async def start(self, before_listening: Callable[[], Awaitable[None]] | None = None) -> list[Address]:
        """Start the workers, wait for ``before_listening``, and listen; return the addresses, with real
        ports. Raises ``StartFailed``.
        """
        asyncio.get_running_loop().set_exception_handler(self._descriptors.handle)
        try:
            # Bind first: a port in use is found out faster than workers start.
            await self._open_listeners()
            if self._settings.user is not None:
                change_user(self._settings.user)
            self._check_spool_folder()
            self._uploads.start()
            if self._settings.otel:
                self._telemetry = self._make_telemetry()
                self._telemetry.start()
            self._watching = asyncio.get_running_loop().create_task(self._watch())
            await self._pool.start()
            log_confinement(self._pool.formats.layers)
            if before_listening is not None:
                await before_listening()
            listening = await self._listeners.start()
        except StartFailed:
            await self.stop()
            raise
        if self._operator is not None:
            self._operator.health.has_started = True
        self._warn_if_open(listening)
        fields = start_fields(self._settings, self._pool.formats, listening)
        _log.info("started", extra={"fields": fields})
        return listening

    async def announce(self, addresses: list[Address]) -> None:
        """Say that the server accepts requests at ``addresses``: to the service manager, and to the server
        whose place it takes, which then stops. Raises ``StartFailed``; this one has to ``stop`` then.
        """
        await self._succession.finish()
        self._watchdog = Watchdog(self._notifier, self._pool.check_ready)
        self._notifier.ready(f"{self._pool.size} workers, listening on {', '.join(map(str, addresses))}")

    def check_ready(self) -> None:
        """Raise ``Draining`` if there has been no worker for a while."""
        self._pool.check_ready()

    def _check_ready(self) -> None:
        """Raise ``Draining`` if there has been no worker for a while, or the server is about to stop."""
        if self._context.withdrawn:
            raise Draining("the server is about to stop")
        self._pool.check_ready()

    async def borrow(self, owner: int, given: Sequence[OpenListener]) -> None:
        """Accept connections from the sockets of the gateway with the number ``owner``, which has ended,
        until ``give_back``. Raises ``StartFailed``.
        """
        borrowed = self._borrowed.setdefault(owner, [])
        for one in given:
            borrowed.append(await self._listeners.borrow(one, self._connections_of(one.address)))
        self._tell_operator()

    def give_back(self, owner: int) -> None:
        """Accept no more connections from the sockets of another gateway."""
        for listener in self._borrowed.pop(owner, []):
            self._listeners.give_back(listener)

    def _warn_if_open(self, listening: list[Address]) -> None:
        if self._settings.insecure:
            return
        for_operator = [one for one in listening if is_exposed(one) and one.wire is Wire.OPS]
        if for_operator:
            _log.warning(
                "%s, for the operator, can be reached from other machines: whoever can may read metrics and "
                "live figures. Keep it in a private network, choose another address with --ops-listen, or "
                "accept it with --insecure",
                ", ".join(map(str, for_operator)),
            )
        has_certificates = self._settings.tls_client_ca is not None
        exposed = [
            one
            for one in listening
            if is_exposed(one) and one not in for_operator and not (one.tls and has_certificates)
        ]
        if exposed and not self._access.requires_login:
            _log.warning(
                "OPEN TO EVERYONE: whoever can reach %s may use this server, because it asks for no token. "
                "Create one with 'vipsrv token new' and name the file with --tokens, listen on 127.0.0.1, "
                "or accept it with --insecure",
                ", ".join(map(str, exposed)),
            )

    def _check_spool_folder(self) -> None:
        folder = self._settings.spool_dir
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StartFailed(f"the spool folder {folder} is not writable; choose another with --spool-dir")

    def prepare_reload(self, settings: ServerSettings) -> TakeOver:
        """Check new settings, and return what takes them over. Raises ``SettingsError``. See ``reload``."""
        try:
            limit = raise_limit()
            settings = fit_connections(settings, limit)
        except StartFailed as error:
            raise SettingsError(str(error)) from None
        trusted_proxies = AddressList(settings.trusted_proxies)
        certificates = [] if self._certificates is None else [self._certificates]
        parts = prepare_all([self._access, *certificates], settings)

        def take_over() -> None:
            parts()
            self._settings = settings
            self._trusted_proxies = trusted_proxies
            self._context.change_settings(settings)
            if self._operator is not None:
                self._operator.change_settings(settings)
            files = files_that_fit(settings, limit)
            self._uploads.change_settings(settings)
            self._spool.resize(memory=settings.spool_memory, disk=settings.spool_disk, files=files)
            self._pool.reconfigure(self._watermarks.config(settings), max_jobs=settings.jobs_per_worker)
            self._admission.change_limits(
                limit=settings.queue, per_client=settings.client_queue, memory=settings.decode_memory
            )

        return take_over

    async def drain(self, *, has_successor: bool | None = None) -> None:
        """Accept no new requests, and wait up to ``settings.drain`` seconds for those in flight.

        ``has_successor`` is whether others go on with the listening sockets, if the caller knows better. If
        nobody does, the drain begins after ``settings.drain_delay`` seconds.
        """
        if not self._succession.is_handed_over:
            self._notifier.stopping()
        sockets_live_on = self._succession.sockets_live_on if has_successor is None else has_successor
        if not sockets_live_on and self._settings.drain_delay:
            await self._withdraw(self._settings.drain_delay)
        self._context.has_successor = sockets_live_on or self._context.withdrawn
        self._succession.close()
        self._context.draining = True
        # The operator watches the drain, unless others go on with that socket, too.
        others_answer = bool(has_successor) or self._listeners.shared
        self._listeners.close(but=None if others_answer else Wire.OPS)
        if others_answer and self._operator is not None:
            self._operator.drain()
        for connection in self._context.connections:
            connection.drain()
        self._uploads.share(True)
        await self._context.connections.wait_until_closed(self._settings.drain)

    async def _withdraw(self, seconds: float) -> None:
        """Serve as before, but say that the server is not ready, until load balancers have turned away."""
        _log.info(
            "not ready from now on, so that load balancers turn away; the drain begins in %g s", seconds
        )
        self._context.withdrawn = True
        await asyncio.sleep(seconds)

    async def stop(self) -> None:
        """Stop at once; clients that still wait get ``Draining``."""
        self._context.has_successor = False
        self._succession.abandon()
        self._context.draining = True
        self._listeners.close(but=Wire.OPS)
        for connection in self._context.connections:
            connection.stop()
        await self._context.connections.wait_until_closed(FAREWELL_SECONDS)
        for connection in self._context.connections:
            connection.abort()
        if self._watching is not None:
            self._watching.cancel()
        if self._operator is not None:
            self._operator.canary.close()
        await self._pool.stop()
        self._watermarks.close()
        self._listeners.close()
        if self._operator is not None:
            await self._operator.close(FAREWELL_SECONDS)
        await self._uploads.close()
        await asyncio.to_thread(self._spool.close)
        if self._telemetry is not None:
            await self._telemetry.stop()

    async def _open_listeners(self) -> None:
        """Bind each address that is wanted, or use the sockets that there are. Raises ``StartFailed``."""
        settings = self._settings
        given = await self._succession.begin(settings)
        given_for_clients = [one.address for one in given if one.address.wire is not Wire.OPS]
        own = [] if given_for_clients else addresses_of(settings)
        if any(address.tls for address in given_for_clients or own):
            try:
                self._certificates = ServerCertificates(settings)
                self._certificates.report()
            except SettingsError as error:
                raise StartFailed(str(error)) from None
        for one in given:
            await self._listeners.adopt(one, self._connections_of(one.address))
        for address in own:
            await self._listeners.bind(address, self._connections_of(address))
        ops = settings.ops_address
        if ops is not None and self._number is None and len(given_for_clients) == len(given):
            with may_lack_default(settings):
                await self._listeners.serve(ops, self._connections_of(ops))
        self._tell_operator()

    def _make_operator(self, gateways: int) -> "Operator":
        # Imported here because an embedded server starts in nine tenths of the time without it.
        from vipsrv.server.ops.operator import Operator  # noqa: PLC0415

        return Operator(
            self._context,
            self._pool,
            self.snapshots,
            number=(self._number or 0) + 1,
            gateways=gateways,
            certificate_expires=self._certificate_expires,
        )

    def _tell_operator(self) -> None:
        if self._operator is not None:
            self._operator.listens_on(self._listeners.addresses(Wire.OPS))

    def _certificate_expires(self) -> float | None:
        return None if self._certificates is None else self._certificates.expires

    def _connections_of(self, address: Address) -> Callable[[], asyncio.BufferedProtocol]:
        """Return what makes the connections to a listener at this address."""
        if address.wire is Wire.HTTP and Wire.HTTP not in self._wires:
            # Imported here because an embedded server, which does not speak HTTP, starts quicker without it.
            from vipsrv.server.api.image_routes import image_routes  # noqa: PLC0415
            from vipsrv.server.api.problems import problem  # noqa: PLC0415
            from vipsrv.server.http.connection import HttpConnection  # noqa: PLC0415
            from vipsrv.server.http.replies import pack_problem  # noqa: PLC0415

            connect = partial(HttpConnection, self._context, image_routes(self._context))
            self._wires[Wire.HTTP] = _Wire(connect, partial(pack_problem, problem))
        return partial(self._make_connection, address)

    def _make_connection(self, address: Address) -> asyncio.BufferedProtocol:
        """Return the connection of a client: for the header of a proxy, then TLS, then requests."""
        if address.wire is Wire.OPS and self._operator is not None:
            return self._operator.make_connection()
        self._context.connections.opened += 1
        make, refusal = wire = self._wires[address.wire]
        if address.tls and self._certificates is not None:
            make = partial(
                TlsConnection,
                self._context,
                self._certificates,
                wire.connect,
                wire=address.wire,
                refusal=refusal,
            )
        if self._trusted_proxies:
            return ProxiedConnection(self._context, self._trusted_proxies, make)
        return make()

    def _make_telemetry(self) -> "Telemetry":
        """Return what exports traces and metrics. Raises ``StartFailed``."""
        try:
            from vipsrv.server.otel.telemetry import Telemetry  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as error:
            raise StartFailed(
                f"--otel: the Python package {error.name} is missing: pip install 'vipsrv[otel]', or "
                "leave out --otel"
            ) from None
        if self._operator is not None:
            figures = self._operator.figures
        else:
            from vipsrv.server.metrics.gateway_figures import GatewayFigures  # noqa: PLC0415 - as above

            figures = GatewayFigures(
                self._context,
                self._pool,
                gateway=(self._number or 0) + 1,
                gateways=self._gateways,
                certificate_expires=self._certificate_expires,
            )
        return Telemetry(self._context.ended_requests, figures.collect, gateway=self._number)

    def _describe(self) -> dict[str, Any]:
        """Return the meta of the reply to a HELLO."""
        settings, formats = self._settings, self._pool.formats
        worker = settings.worker_config()
        uploads = {"uploads": self._uploads.describe()} if self._uploads.offered else {}
        watermarks = {"watermarks": self._watermarks.names} if self._watermarks.files else {}
        return {
            "server": f"vipsrv/{__version__}",
            "limits": {
                "max_upload": int(settings.max_upload),
                "max_pixels": worker.max_pixels,
                "max_output_pixels": worker.max_output_pixels,
                "deadline_ms": int(settings.deadline * 1000),
                "workers": settings.workers,
                # A client whose requests wait already gets no more of them into a queue that is full.
                "queue_per_client": min(settings.client_queue, settings.queue),
            },
            "formats": {"in": list(formats.readers), "out": list(formats.writers)},
            "libraries": formats.readers,
            "fits": list(Fit),
            **watermarks,
            **uploads,
        }

    def _handed_over(self, successor: int | None) -> None:
        if successor is not None:
            self._notifier.main_process(successor)
        self._notifier.close()
        if self._on_handed_over is not None:
            self._on_handed_over()

    def _worker_idle(self) -> None:
        self._admission.worker_idle()

    def _job_is_heavy(self, job: Job) -> None:
        self._admission.requeue_as_heavy(job)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self._descriptors.check()
            await self._listeners.pause_if(self._descriptors.exhausted)
            self._context.accounts.forget_unused()
            now = time.monotonic()
            if self._watchdog is not None:
                self._watchdog.check(now)
            if self._certificates is not None:
                self._certificates.watch(now, self._settings)
            # Connections last: they fail only the requests that pool and admission do not check.
            of_operator = [] if self._operator is None else self._operator.due(now)
            connections = self._context.connections.due(now)
            check_timeouts([self._pool, self._admission, self._uploads, *of_operator, *connections], now)


def check_timeouts(
    watched: "list[WorkerPool | Admission | Uploads | Connection | LoadHistory]", now: float
) -> None:
    """Make each of ``watched`` check its deadlines and timeouts. A bug in one must not stop the others."""
    for one in watched:
        try:
            one.watch(now)
        except Exception:  # noqa: BLE001 - logged with its traceback
            _log.exception("the deadlines and timeouts of %r could not be checked", one)
