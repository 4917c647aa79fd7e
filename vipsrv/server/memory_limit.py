"""The memory that a server may take, and the defaults of its settings where a cgroup allows less.

Without a limit, or with one under which the defaults fit, the defaults are those of the settings. Otherwise
there are as many workers as half of the limit holds, and what gateways and workers leave is divided (decision
52). A setting that somebody has given stays as it is, and the others do not make up for it.

Files of a spool in a tmpfs count as memory of the cgroup, and the kernel cannot free them as it frees the
page cache. They then get three quarters of the rest, because an image has to fit. To leave them so much,
processes count with what they take as measured rather than with their bounds, and heavy jobs with half of
what is predicted for them, which is what large jobs really take.
"""

from typing import Any

from pydantic import ByteSize

from vipsrv.server.gateways.shares import settings_of
from vipsrv.server.settings import ServerSettings

_MIB = 1 << 20

GATEWAY_MEMORY = 48 * _MIB
WORKER_MEMORY = 176 * _MIB
"""The bounds of docs/operations/memory.md, which a soak test checks."""

_IDLE_WORKER = 48 * _MIB
"""Bytes of a worker between two jobs."""

_LIGHT_JOB = 64 * _MIB
"""The bound of a job outside of the heavy lane (``vipsrv/pipeline/cost.py``)."""

_LEAST_SPOOL_MEMORY = 16 * _MIB
"""An upload and a result of the largest size that is kept in memory."""

_LEAST_DISK = 64 * _MIB


def settings_within(
    settings: ServerSettings, limit: int | None, *, spool_limit: int | None = None
) -> dict[str, Any]:
    """Return the values that replace defaults of ``settings``, so that the server takes at most ``limit``.

    ``spool_limit`` is the size of the spool folder's file system if that is in memory, ``None`` if it is on a
    disk.
    """
    if limit is None:
        return {}
    given = settings.model_fields_set
    changes: dict[str, Any] = {}
    if "workers" not in given:
        most = (limit // 2 - GATEWAY_MEMORY) // WORKER_MEMORY
        # Each gateway needs one. Without --gateways there are no more gateways than workers.
        changes["workers"] = min(settings.workers, max(1, settings.gateways, most))
    fitted = settings.model_copy(update=changes)
    in_files = 0 if spool_limit is None else sum(share.spool_disk for share in shares_of(fitted))
    if memory_needed(fitted) + in_files > limit:
        changes |= _budgets(fitted, limit, spool_limit)
    return {
        name: value
        for name, value in changes.items()
        if name not in given and value != getattr(settings, name)
    }


def _budgets(settings: ServerSettings, limit: int, spool_limit: int | None) -> dict[str, Any]:
    workers, gateways = settings.workers, settings.gateway_count
    rest = limit - (gateways + (gateways > 1)) * GATEWAY_MEMORY
    if spool_limit is None:
        rest -= workers * WORKER_MEMORY
        jobs, disk = rest * 3 // 4, int(settings.spool_disk)
        memory = rest - jobs
    else:
        # One worker of each gateway has a heavy job instead of a light one.
        rest -= workers * _IDLE_WORKER + (workers - gateways) * _LIGHT_JOB
        disk, memory = rest * 3 // 4, rest // 16
        jobs = 2 * (rest - disk - memory)
        disk = min(disk, spool_limit)
    jobs, disk, memory = (
        max(budget, gateways * least)
        for budget, least in ((jobs, _LIGHT_JOB), (disk, _LEAST_DISK), (memory, _LEAST_SPOOL_MEMORY))
    )
    disk = min(disk, settings.spool_disk)  # which may have been given
    budgets = {
        "spool_memory": min(settings.spool_memory, memory),
        "spool_disk": disk,
        # Parts of those two, which give way to live requests.
        "upload_memory": min(settings.upload_memory, memory // 4),
        "upload_disk": min(settings.upload_disk, disk),
        "decode_memory": min(settings.decode_memory, jobs),
        # A gateway without a heavy job starts one of any memory, also beyond its share of decode_memory.
        "job_memory": min(settings.worker_config().job_memory, jobs // gateways),
        # One that does not fit into the spool would be told to try again for ever. The spool of a gateway has
        # room for one of the largest size, however many gateways there are.
        "max_upload": min(settings.max_upload, disk if spool_limit is None else disk // gateways),
    }
    return {name: ByteSize(size) for name, size in budgets.items()}


def memory_needed(settings: ServerSettings) -> int:
    """The largest anonymous memory of a server, in bytes, as docs/operations/memory.md adds it up."""
    shares = shares_of(settings)
    supervisor = GATEWAY_MEMORY if len(shares) > 1 else 0
    return supervisor + sum(map(_memory_of_gateway, shares))


def _memory_of_gateway(settings: ServerSettings) -> int:
    job_memory = settings.worker_config().job_memory
    lane = job_memory * max(1, settings.workers // 2)
    return (
        GATEWAY_MEMORY
        + settings.spool_memory
        + settings.workers * WORKER_MEMORY
        # A gateway without a heavy job starts one of any memory.
        + min(max(settings.decode_memory, job_memory), lane)
    )


def shares_of(settings: ServerSettings) -> list[ServerSettings]:
    """Return the settings of each gateway."""
    count = settings.gateway_count
    return [settings_of(settings, count, number) if count > 1 else settings for number in range(count)]
