"""When the pool kills a worker, replaces it, or starts it again."""

import os
from dataclasses import dataclass

from vipsrv.workers.channel import MAX_THREADS

_MOST_THREADS = max(100, 3 * min(MAX_THREADS, os.cpu_count() or 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPolicy:
    """When a worker is killed or replaced, and how often starts are tried again.

    ``start_seconds`` is how long a worker may take to start (a fraction of a second on an idle machine), and
    ``stop_seconds`` how long it may go on with a job that it was told to stop. A worker is replaced after
    ``max_jobs`` jobs, so that no slow leak in a decoder adds up and an image that has taken it over sees few
    others, and when it holds more than ``max_memory`` bytes while it is idle. It is killed when it
    has more than ``max_threads`` threads: 31 were counted in a job that may use 64 on two cores, and libvips
    and a decoder may each have as many as there are cores.

    While the pool starts, ``start_tries`` workers may crash or be killed before the start fails; one that
    says why it cannot start is believed at once. Later, a worker that ends within ``trial_seconds`` of being
    ready, without having had a job, failed to start. After ``free_starts`` failed starts in a row, the next
    one waits ``first_pause`` seconds, doubled each time up to ``longest_pause``. When no worker has been
    ready for ``unready_seconds``, the pool says that it is not ready.
    """

    start_seconds: float = 60.0
    stop_seconds: float = 1.0
    max_jobs: int = 20_000
    max_memory: int = 512 * 1024 * 1024
    max_threads: int = _MOST_THREADS
    start_tries: int = 3
    trial_seconds: float = 1.0
    free_starts: int = 4
    first_pause: float = 0.1
    longest_pause: float = 30.0
    unready_seconds: float = 5.0

    def pause_after(self, failures: int) -> float:
        """Return the seconds to wait after ``failures`` failed starts in a row."""
        if failures <= self.free_starts:
            return 0.0
        return min(self.longest_pause, self.first_pause * 2.0 ** min(failures - self.free_starts, 16))
