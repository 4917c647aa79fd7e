"""Find out which formats a server with given settings reads and writes.

This starts a worker, because this process does not load libvips.
"""

import asyncio

from vipsrv.server.settings import ServerSettings
from vipsrv.server.watermarks import Watermarks
from vipsrv.storage import Spool
from vipsrv.workers.channel import Ready
from vipsrv.workers.pool import WorkerPool


def formats_of(settings: ServerSettings) -> Ready:
    """Start a worker, return its handshake, which names the formats, and stop it. Raises ``StartFailed``."""
    return asyncio.run(_formats_of(settings))


async def _formats_of(settings: ServerSettings) -> Ready:
    watermarks = Watermarks(settings)
    config = watermarks.config(settings)
    spool = Spool(directory=settings.spool_dir, memory=0, disk=0)
    pool = WorkerPool(spool, config, size=1, on_idle=lambda: None, on_heavy=lambda _job: None)
    try:
        await pool.start()
        try:
            return pool.formats
        finally:
            await pool.stop()
            spool.close()
    finally:
        watermarks.close()
