"""What a server of these settings reads and writes: asked of a worker, for the gateway knows no libvips."""

import asyncio

from vipsrv.server.settings import ServerSettings
from vipsrv.storage.spool import Spool
from vipsrv.worker_config import WorkerConfig
from vipsrv.workers.channel import Ready
from vipsrv.workers.pool import WorkerPool


def worker_config(settings: ServerSettings) -> WorkerConfig:
    """The part of the settings that concerns the workers."""
    return WorkerConfig(
        max_pixels=settings.max_pixels,
        max_output_pixels=settings.max_output_pixels,
        job_memory=settings.job_memory,
        max_expansion=settings.max_expansion,
        quality=settings.quality,
        formats=settings.formats,
        tolerate_truncated=settings.tolerate_truncated,
    )


def formats_of(settings: ServerSettings) -> Ready:
    """Start a worker, ask it, end it. Raises ``StartFailed``."""
    return asyncio.run(_formats_of(settings))


async def _formats_of(settings: ServerSettings) -> Ready:
    spool = Spool(directory=settings.spool_dir, memory=0, disk=0)
    pool = WorkerPool(
        spool, worker_config(settings), size=1, on_idle=lambda: None, on_heavy=lambda _job: None
    )
    await pool.start()
    try:
        return pool.formats
    finally:
        await pool.stop()
        spool.close()
