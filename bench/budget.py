"""The memory that a server's settings promise it stays under, and the memory that it has.

The promise is the sum of what each setting bounds, in anonymous memory (``RssAnon`` and ``RssShmem``):

======================  ================================================================================
the gateway             ``GATEWAY_BASE``: Python, the event loop, code that was imported
uploads, results        ``spool_memory``, and ``KEPT_FREE`` of chunks of the other size; for each connection
                        what its slot may take when that is used up (``OVERDRAFT`` and the chunk that is
                        filled), what was read ahead, and one piece of a file that is being sent
each worker             ``WORKER_BASE``: Python, libvips and what its malloc keeps between two pictures;
                        and ``LIGHT`` for a job outside of the heavy lane
shared memory           an upload of at most ``IN_MEMORY_SIZE`` for each worker, counted twice, for the
                        gateway and the worker have both mapped it
the heavy lane          ``decode_memory``, or ``job_memory`` for each worker of the lane where that is less
======================  ================================================================================

The page cache behind the spool's files is not in it: the kernel takes that back when it has a better use.
"""

from collections.abc import Iterable

from bench.processes import anonymous_bytes
from vipsrv.pipeline.cost import LIGHT
from vipsrv.server.connections.inbox import READ_AHEAD_SIZE
from vipsrv.server.connections.outbox import FILE_READ_SIZE
from vipsrv.server.settings import ServerSettings
from vipsrv.storage.spool import KEPT_FREE, OVERDRAFT, SMALL_CHUNK_SIZE
from vipsrv.worker_config import IN_MEMORY_SIZE

MIB = 1 << 20

GATEWAY_BASE = 48 * MIB
"""Bytes of a gateway without a connection (25 MiB measured with Python 3.11), and what its malloc keeps."""

WORKER_BASE = 96 * MIB
"""Bytes of a worker that has done many pictures: 15 MiB when it starts, and ``_KEPT_MEMORY`` of
``workers/process.py`` in each of its two arenas."""


def memory_budget(settings: ServerSettings, connections: int) -> int:
    """Bytes that a server of these settings stays under with so many connections."""
    lane = max(1, settings.workers // 2)
    heavy = min(lane * settings.job_memory, max(settings.decode_memory, settings.job_memory))
    return (
        GATEWAY_BASE
        + settings.spool_memory
        + KEPT_FREE
        + connections * (OVERDRAFT + SMALL_CHUNK_SIZE + READ_AHEAD_SIZE + FILE_READ_SIZE)
        + settings.workers * (WORKER_BASE + LIGHT + 2 * IN_MEMORY_SIZE)
        + heavy
    )


def memory_of(pids: Iterable[int]) -> list[int]:
    """Anonymous bytes of each process; 0 of one that has ended meanwhile."""
    return [_memory(pid) for pid in pids]


def _memory(pid: int) -> int:
    try:
        return anonymous_bytes(pid)
    except (FileNotFoundError, ProcessLookupError, KeyError):  # gone, or a zombie, which has no memory
        return 0
