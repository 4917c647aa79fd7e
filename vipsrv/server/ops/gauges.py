"""What a gateway holds at this moment: its queue, spool, connections, and each of its processes."""

import os
import time
from pathlib import Path
from typing import Any

from vipsrv.server.context import ServerContext
from vipsrv.version import __version__
from vipsrv.workers.pool import WorkerPool
from vipsrv.workers.process import WorkerProcess

_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_UTIME, _RSS = 11, 21  # fields of /proc/PID/stat after the name: proc(5) counts them from 14 and 24


class Gauges:
    """Reads the gauges of one gateway, whose processes it looks up in /proc."""

    def __init__(self, context: ServerContext, pool: WorkerPool) -> None:
        self._context = context
        self._pool = pool
        self._started = time.time()

    def read(self) -> dict[str, Any]:
        """Return all gauges as JSON; sizes are bytes, times are seconds."""
        context, settings = self._context, self._context.settings
        now = time.monotonic()
        return {
            "version": __version__,
            "started": round(self._started, 3),
            "draining": context.draining,
            "queue": {
                "light": context.admission.use.light_waiting,
                "heavy": context.admission.use.heavy_waiting,
                "limit": settings.queue,
            },
            "spool": {
                "memory": int(settings.spool_memory) - context.spool.memory_left,
                "memory_limit": int(settings.spool_memory),
                "disk": int(settings.spool_disk) - context.spool.disk_left,
                "disk_limit": int(settings.spool_disk),
            },
            "connections": {"open": context.connections.served, "limit": settings.connections},
            "process": {"pid": os.getpid(), **_usage(os.getpid(), now)},
            "wanted_workers": self._pool.size,
            "workers": [_worker(worker, now) for worker in self._pool.workers],
        }

    def waiting(self) -> int:
        """Return how many requests wait for a worker."""
        use = self._context.admission.use
        return use.light_waiting + use.heavy_waiting

    def cpu_seconds(self) -> dict[int, float]:
        """Return the CPU seconds of each worker since its start, by process id, where they are known."""
        now = time.monotonic()
        usage = {worker.pid: _usage(worker.pid, now)["cpu"] for worker in self._pool.workers}
        return {pid: cpu for pid, cpu in usage.items() if cpu is not None}


def _worker(worker: WorkerProcess, now: float) -> dict[str, Any]:
    job = worker.job
    current = None
    if job is not None:
        current = {
            "kind": job.operation.name.lower(),
            "seconds": round(now - job.started, 3),
            "bytes": job.image.size,
            "threads": job.threads,
            "heavy": job.memory > 0,
        }
    return {
        "pid": worker.pid,
        "state": worker.state.name.lower(),
        "jobs": worker.jobs_done,
        "job": current,
        **_usage(worker.pid, now),
    }


def _usage(pid: int, now: float) -> dict[str, float | None]:
    """Return the resident memory of a process, and its CPU seconds ``at`` this moment of the clock.

    Both are ``None`` if they are unknown.
    """
    try:
        # The name, in parentheses, may itself have any characters.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        cpu = (int(fields[_UTIME]) + int(fields[_UTIME + 1])) / _TICKS
        return {"rss": int(fields[_RSS]) * _PAGE_SIZE, "cpu": cpu, "at": now}
    except (OSError, ValueError, IndexError):
        return {"rss": None, "cpu": None, "at": now}
