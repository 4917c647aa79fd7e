"""Who may wait for a worker, and who comes next.

::

    submit ──► queue ──────────────► worker ──► outcome
                                       │ "it is heavy: this much memory"
               heavy queue ◄───────────┘
                    └── when the heavy lane and the memory have room ──► worker ──► outcome

Each queue is bounded: beyond it a request is refused with a time to come back, estimated from how long the
waiting ones will take. Each by itself, so that giants that wait do not turn the small ones away. The heavy
lane is half of the workers, so that giants never keep all of them from the small ones, and its jobs share a
budget of memory. A heavy job gets the idle cores, too (see ``threads``); light ones that come meanwhile share
the machine with it.
"""

from collections import deque
from functools import partial

from vipsrv.errors import Busy, Cancelled, DeadlineExceeded
from vipsrv.server.threads import threads_for
from vipsrv.workers.job import Job
from vipsrv.workers.pool import WorkerPool

_SMOOTHING = 0.1
"""Weight of the newest job in the running mean of processing time."""

_FIRST_GUESS_SECONDS = 0.05
_LEAST_RETRY_MS = 100


class Admission:
    """Queues of at most ``limit`` jobs each in front of a pool; ``memory`` bytes for the heavy ones together,
    and ``cores`` for all.
    """

    def __init__(self, pool: WorkerPool, *, limit: int, memory: int, cores: int) -> None:
        self._pool = pool
        self._limit = limit
        self._queue: deque[Job] = deque()
        self._heavy: deque[Job] = deque()
        self._heavy_running: set[Job] = set()
        self._heavy_lane = max(1, pool.size // 2)
        self._memory_left = memory
        self._cores = min(cores, pool.size)
        self._heavy_was_last = False
        self._mean_seconds = _FIRST_GUESS_SECONDS

    @property
    def waiting(self) -> int:
        """Jobs in the queues."""
        return len(self._queue) + len(self._heavy)

    def check(self) -> None:
        """Raise ``Busy`` if a job that came now would find the queue full."""
        if len(self._queue) >= self._limit and not self._pool.has_idle:
            raise self._busy(len(self._queue), self._pool.size)

    def submit(self, job: Job) -> None:
        """Start a job or queue it. Raises ``Busy``; the job is then still the caller's."""
        if not self._queue and self._pool.run(job):
            return
        self.check()
        self._queue.append(job)

    def heavy(self, job: Job) -> None:
        """A worker has found a job to be heavy and given it back: it waits for its turn, or is refused."""
        if len(self._heavy) + len(self._heavy_running) < self._limit + self._heavy_lane:
            self._heavy.append(job)
        else:
            job.fail(self._busy(len(self._heavy), self._heavy_lane))
            job.close()

    def worker_idle(self) -> None:
        """A worker is free: the next job is its."""
        while self._pool.has_idle:
            heavy = self._next_is_heavy()
            queue = self._heavy if heavy else self._queue
            if heavy:
                queue[0].threads = self._threads_for(queue[0])
            if not queue or not self._pool.run(queue[0]):
                return
            job = queue.popleft()
            self._heavy_was_last = heavy
            if heavy:
                self._heavy_running.add(job)
                self._memory_left -= job.memory * job.threads
                job.on_close = partial(self._heavy_ended, job)

    def job_took(self, seconds: float) -> None:
        """Learn from a job how long they take."""
        self._mean_seconds += _SMOOTHING * (seconds - self._mean_seconds)

    def cancel(self, job: Job) -> None:
        """Nobody waits for this job any more."""
        for queue in (self._queue, self._heavy):
            if job in queue:
                queue.remove(job)
                job.fail(Cancelled("the client cancelled the request or went away"))
                job.close()
                return
        self._pool.cancel(job)

    def watch(self, now: float) -> None:
        """To be called several times a second with ``time.monotonic()``."""
        for queue in (self._queue, self._heavy):
            for job in [job for job in queue if now > job.deadline]:
                queue.remove(job)
                job.fail(DeadlineExceeded("no worker was free before the deadline"))
                job.close()
        # A job that was in the way may be gone, or the worker that the next one waited for.
        self.worker_idle()

    def _busy(self, waiting: int, workers: int) -> Busy:
        seconds = self._mean_seconds * waiting / workers
        return Busy(
            f"{waiting} requests are waiting already; try again later",
            retry_after_ms=max(_LEAST_RETRY_MS, int(seconds * 1000)),
        )

    def _heavy_ended(self, job: Job) -> None:
        self._heavy_running.discard(job)
        self._memory_left += job.memory * job.threads

    def _threads_for(self, job: Job) -> int:
        return threads_for(
            job.memory,
            cores=self._cores,
            busy=self._pool.threads_busy,
            waiting=self.waiting - 1,
            memory_left=self._memory_left,
        )

    def _next_is_heavy(self) -> bool:
        if not self._heavy or len(self._heavy_running) >= self._heavy_lane:
            return False
        if self._heavy[0].memory > self._memory_left and self._heavy_running:
            return False
        # With a single worker the two queues take turns.
        return not (self._heavy_was_last and self._queue and self._pool.size == 1)
