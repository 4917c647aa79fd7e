"""How many threads a job may have: the cores that nobody else uses, for a heavy one; a small one has one.

One thread a job gives the best throughput where all workers are busy, and 20 ms of work are over before a
second thread is awake. A giant on an idle machine is another matter.
"""

from vipsrv.workers.channel import MAX_THREADS


def threads_for(memory: int, *, cores: int, busy: int, waiting: int, memory_left: int) -> int:
    """Threads for a heavy job that would take ``memory`` bytes with one: as many times that is set aside.

    ``busy`` of the ``cores`` are used by the threads of other jobs, and ``waiting`` jobs would start at
    once if they were not. ``memory_left`` is what heavy jobs may still take, in bytes.
    """
    share = max(0, cores - busy) // (1 + waiting)
    return max(1, min(share, memory_left // memory, MAX_THREADS))
