"""Collects the figures of one gateway: what it has counted, and what its parts hold at the moment."""

import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from vipsrv.errors import Draining, Limit
from vipsrv.server.context import ServerContext
from vipsrv.server.logs.start_line import libvips_version
from vipsrv.server.metrics import catalogue
from vipsrv.server.metrics.merging import Snapshot
from vipsrv.server.metrics.processes import GatewayProcesses
from vipsrv.server.metrics.requests import RequestCounts
from vipsrv.server.metrics.snapshot import Figures
from vipsrv.version import __version__
from vipsrv.workers.confinement import missing_layers
from vipsrv.workers.pool import WorkerPool
from vipsrv.workers.process import EndCause, WorkerState

_WORKER_STATES = (WorkerState.STARTING, WorkerState.IDLE, WorkerState.BUSY)


class GatewayFigures:
    """Counts the requests of a gateway from now on, and collects all its figures: ``snapshot``.

    ``gateway`` is its number, from 1, of ``gateways``. ``certificate_expires`` returns when the certificate
    of its TLS listeners expires, or ``None`` without any.
    """

    def __init__(
        self,
        context: ServerContext,
        pool: WorkerPool,
        *,
        gateway: int = 1,
        gateways: int = 1,
        certificate_expires: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._context = context
        self._pool = pool
        self._gateway = gateway
        self._gateways = gateways
        self._certificate_expires = certificate_expires
        self._started = time.time()
        self._run = f"{os.getpid()} {self._started}"
        self._requests = RequestCounts()
        self._processes = GatewayProcesses(lambda: pool.pids)
        context.ended_requests.add(self._requests)

    def snapshot(self) -> dict[str, Any]:
        """Return a ``Snapshot`` of this moment as a value that JSON can hold."""
        return Snapshot(self._gateway, self._run, self.collect()).to_json()

    def collect(self) -> Figures:
        """Return the figures of this moment."""
        figures = Figures()
        self._requests.add_to(figures)
        self._add_queue(figures)
        self._add_spool(figures)
        self._add_uploads(figures)
        self._add_connections(figures)
        self._add_workers(figures)
        self._add_processes(figures)
        self._add_server(figures)
        return figures

    def _add_queue(self, figures: Figures) -> None:
        use, in_flight = self._context.admission.use, self._context.in_flight
        figures.add(catalogue.IN_FLIGHT, in_flight.requests)
        figures.add(catalogue.IN_FLIGHT_BYTES, in_flight.size)
        figures.add(catalogue.QUEUE_LENGTH, use.light_waiting, "light")
        figures.add(catalogue.QUEUE_LENGTH, use.heavy_waiting, "heavy")
        figures.add(catalogue.QUEUE_LIMIT, use.waiting_limit)
        figures.add(catalogue.JOBS_RUNNING, use.light_running, "light")
        figures.add(catalogue.JOBS_RUNNING, use.heavy_running, "heavy")
        figures.add(catalogue.JOBS, self._pool.jobs_done)
        figures.add(catalogue.HEAVY_JOBS, use.heavy_jobs)
        figures.add(catalogue.DECODE_MEMORY, use.memory)
        figures.add(catalogue.DECODE_MEMORY_LIMIT, use.memory_limit)

    def _add_spool(self, figures: Figures) -> None:
        use = self._context.spool.use
        figures.add(catalogue.SPOOL, use.memory, "memory")
        figures.add(catalogue.SPOOL, use.disk, "disk")
        figures.add(catalogue.SPOOL_LIMIT, use.memory_limit, "memory")
        figures.add(catalogue.SPOOL_LIMIT, use.disk_limit, "disk")
        figures.add(catalogue.SPOOL_FILES, use.files)
        if use.moves:
            figures.add(catalogue.LIMITS_HIT, use.moves, Limit.SPOOL_MEMORY)

    def _add_uploads(self, figures: Figures) -> None:
        uploads = self._context.uploads
        if uploads is None:
            return
        idle, counts = uploads.idle, uploads.counts
        figures.add(catalogue.UPLOADS_WAITING, len(idle))
        figures.add(catalogue.UPLOADS_WAITING_BYTES, idle.memory, "memory")
        figures.add(catalogue.UPLOADS_WAITING_BYTES, idle.disk, "disk")
        figures.add(catalogue.UPLOADS_RESUMED, counts.resumed)
        figures.add(catalogue.UPLOADS_SAVED_BYTES, counts.saved)
        figures.add(catalogue.UPLOADS_REMOVED, counts.expired, "expired")
        figures.add(catalogue.UPLOADS_REMOVED, counts.evicted, "evicted")

    def _add_connections(self, figures: Figures) -> None:
        connections = self._context.connections
        idle = connections.idle
        figures.add(catalogue.CONNECTIONS, connections.served - idle, "active")
        figures.add(catalogue.CONNECTIONS, idle, "idle")
        figures.add(catalogue.CONNECTIONS, connections.excess, "excess")
        figures.add(catalogue.CONNECTIONS_LIMIT, connections.limit)
        figures.add(catalogue.CONNECTIONS_OPENED, connections.opened)
        figures.add(catalogue.CONNECTIONS_REFUSED, connections.told_busy, "busy")
        figures.add(catalogue.CONNECTIONS_REFUSED, connections.dropped, "dropped")
        figures.add(catalogue.CONNECTIONS_DISPLACED, connections.displaced)
        if refused := connections.told_busy + connections.dropped:
            figures.add(catalogue.LIMITS_HIT, refused, Limit.CONNECTIONS)
        figures.add(catalogue.TLS_FAILURES, self._context.tls_failures)
        if (expires := self._certificate_expires()) is not None:
            figures.add(catalogue.CERTIFICATE_EXPIRY, expires)

    def _add_workers(self, figures: Figures) -> None:
        states = [worker.state for worker in self._pool.workers]
        for state in _WORKER_STATES:
            figures.add(catalogue.WORKERS, states.count(state), state.name.lower())
        figures.add(catalogue.WORKERS_WANTED, self._pool.size)
        for cause, count in self._pool.ended.items():
            if cause is not EndCause.STOPPING:
                figures.add(catalogue.WORKER_RESTARTS, count, cause)
        with suppress(RuntimeError):  # none has started yet
            layers = self._pool.formats.layers
            for layer in layers:
                figures.add(catalogue.SANDBOX_LAYER, 1, layer)
            missing = missing_layers(layers, root=os.geteuid() == 0)
            figures.add(catalogue.SANDBOX_MISSING, len(missing))

    def _add_processes(self, figures: Figures) -> None:
        gateway, usage = str(self._gateway), self._processes.usage(time.monotonic())
        figures.add(catalogue.CPU_SECONDS, usage.gateway.cpu_seconds, "gateway", gateway)
        figures.add(catalogue.RESIDENT_MEMORY, usage.gateway.resident, "gateway", gateway)
        if usage.workers is not None:
            figures.add(catalogue.CPU_SECONDS, usage.workers.cpu_seconds, "worker", gateway)
            figures.add(catalogue.RESIDENT_MEMORY, usage.workers.resident, "worker", gateway)
            figures.add(catalogue.WORKER_MEMORY_MAX, usage.largest_worker)
        figures.add(catalogue.START_TIME, self._started, "gateway", gateway)
        if usage.open_files is not None:
            figures.add(catalogue.OPEN_FILES, usage.open_files, gateway)
        if usage.open_files_limit is not None:
            figures.add(catalogue.OPEN_FILES_LIMIT, usage.open_files_limit, gateway)

    def _add_server(self, figures: Figures) -> None:
        context, settings = self._context, self._context.settings
        with suppress(RuntimeError):  # no worker has started yet
            libvips = libvips_version(self._pool.formats)
            figures.add(catalogue.BUILD, 1, __version__, platform.python_version(), libvips)
        figures.add(catalogue.READY, int(self._is_ready()))
        figures.add(catalogue.DRAINING, int(context.draining))
        figures.add(catalogue.GATEWAYS, 1)
        figures.add(catalogue.GATEWAY_RESTARTS, 0)  # the supervisor counts them
        figures.add(catalogue.GATEWAYS_WANTED, self._gateways)
        if (queue := context.access_log.queue) is not None:
            figures.add(catalogue.LOG_DROPPED, queue.dropped)
            figures.add(catalogue.LOG_LEFT_OUT, queue.left_out)
        figures.add(catalogue.DEADLINE, settings.deadline)
        figures.add(catalogue.MAX_UPLOAD, int(settings.max_upload))

    def _is_ready(self) -> bool:
        if self._context.draining:
            return False
        try:
            self._context.check_ready()
        except Draining:
            return False
        return True
