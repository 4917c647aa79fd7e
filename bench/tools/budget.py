"""The memory that a server with given settings stays under, and the memory that it uses.

The budget is the sum of what each setting bounds, in anonymous memory (``RssAnon`` and ``RssShmem``):

======================  ================================================================================
the gateway             ``GATEWAY_BASE``: Python, the event loop, imported code
uploads, results        ``spool_memory``, and ``KEPT_FREE`` of chunks of the other size; for each connection
                        what its slot may take when the budget is used up (``OVERDRAFT`` and the chunk being
                        filled), the read-ahead buffer, and one piece of a file being sent
each worker             ``WORKER_BASE``: Python, libvips and what malloc keeps between two jobs; and ``LIGHT``
                        for a job outside the heavy lane
shared memory           an upload of at most ``IN_MEMORY_SIZE`` for each worker, counted twice, because the
                        gateway and the worker both map it
the heavy lane          ``decode_memory``, or ``job_memory`` for each worker of the lane if that is less
======================  ================================================================================

The page cache of the spool's files is not included: the kernel reclaims it when it needs memory.
"""

from collections.abc import Iterable

from bench.measuring.processes import anonymous_bytes
from vipsrv.pipeline.cost import LIGHT
from vipsrv.server.connections.inbox import READ_AHEAD_SIZE
from vipsrv.server.connections.outbox import FILE_READ_SIZE
from vipsrv.server.settings import ServerSettings
from vipsrv.storage.chunk_pool import KEPT_FREE, SMALL_CHUNK_SIZE
from vipsrv.storage.file_slot import OVERDRAFT
from vipsrv.worker_config import IN_MEMORY_SIZE

MIB = 1 << 20

GATEWAY_BASE = 48 * MIB
"""Bytes of a gateway without connections (25 MiB measured with Python 3.11), and what its malloc keeps."""

WORKER_BASE = 96 * MIB
"""Bytes of a worker that has done many jobs: 15 MiB when it starts, and what its malloc settings keep in each
of its two arenas (``workers/launch.py``)."""


def memory_budget(settings: ServerSettings, connections: int) -> int:
    """Bytes that a server with these settings and so many connections stays under."""
    lane = max(1, settings.workers // 2)
    job_memory = settings.worker_config().job_memory
    heavy = min(lane * job_memory, max(settings.decode_memory, job_memory))
    return (
        GATEWAY_BASE
        + settings.spool_memory
        + KEPT_FREE
        + connections * (OVERDRAFT + SMALL_CHUNK_SIZE + READ_AHEAD_SIZE + FILE_READ_SIZE)
        + settings.workers * (WORKER_BASE + LIGHT + 2 * IN_MEMORY_SIZE)
        + heavy
    )


def memory_of(pids: Iterable[int]) -> list[int]:
    """Anonymous bytes of each process; 0 for one that has ended."""
    return [_memory(pid) for pid in pids]


def _memory(pid: int) -> int:
    try:
        return anonymous_bytes(pid)
    except (
        FileNotFoundError,
        ProcessLookupError,
        KeyError,
    ):  # it is gone, or it is a zombie and has no memory
        return 0
