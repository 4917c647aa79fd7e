"""Who may wait for a worker, and who comes next.

One bounded queue in the order of arrival. Beyond the bound a request is refused with a time to come back,
estimated from how long the waiting ones will take.
"""

from collections import deque

from vipsrv.errors import Busy, Cancelled, DeadlineExceeded
from vipsrv.workers.job import Job
from vipsrv.workers.pool import WorkerPool

_SMOOTHING = 0.1
"""Weight of the newest job in the running mean of processing time."""

_FIRST_GUESS_SECONDS = 0.05
_LEAST_RETRY_MS = 100


class Admission:
    """A queue of at most ``limit`` jobs in front of a pool."""

    def __init__(self, pool: WorkerPool, *, limit: int) -> None:
        self._pool = pool
        self._limit = limit
        self._queue: deque[Job] = deque()
        self._mean_seconds = _FIRST_GUESS_SECONDS

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._queue)

    def check(self) -> None:
        """Raise ``Busy`` if a job that came now would find the queue full."""
        if len(self._queue) >= self._limit and not self._pool.has_idle:
            seconds = self._mean_seconds * len(self._queue) / self._pool.size
            raise Busy(
                f"{len(self._queue)} requests are waiting already; try again later",
                retry_after_ms=max(_LEAST_RETRY_MS, int(seconds * 1000)),
            )

    def submit(self, job: Job) -> None:
        """Start a job or queue it. Raises ``Busy``; the job is then still the caller's."""
        if not self._queue and self._pool.run(job):
            return
        self.check()
        self._queue.append(job)

    def worker_idle(self) -> None:
        """A worker is free: the next job is its."""
        while self._queue and self._pool.has_idle:
            if not self._pool.run(self._queue[0]):
                return
            self._queue.popleft()

    def job_took(self, seconds: float) -> None:
        """Learn from a job how long they take."""
        self._mean_seconds += _SMOOTHING * (seconds - self._mean_seconds)

    def cancel(self, job: Job) -> None:
        """Nobody waits for this job any more."""
        try:
            self._queue.remove(job)
        except ValueError:
            self._pool.cancel(job)
            return
        job.fail(Cancelled("the client cancelled the request or went away"))
        job.close()

    def watch(self, now: float) -> None:
        """To be called several times a second with ``time.monotonic()``."""
        late = [job for job in self._queue if now > job.deadline]
        for job in late:
            self._queue.remove(job)
            job.fail(DeadlineExceeded("no worker was free before the deadline"))
            job.close()
