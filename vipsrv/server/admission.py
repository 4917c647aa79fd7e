"""Admission of jobs: which may wait for a worker, and which one runs next.

::

    submit ──► queue ──────────────► worker ──► outcome
                                       │ "this job is heavy: it needs so much memory"
               heavy queue ◄───────────┘
                    └── when the heavy lane and the memory have room ──► worker ──► outcome

Each queue has its own limit, so that waiting heavy jobs do not keep light ones out. Beyond the limit a
request is refused; the time after which to try again is estimated from how long the waiting jobs will take.
The heavy lane is half of the workers, so that heavy jobs never occupy all of them, and its jobs share a
budget of memory. A heavy job also gets the cores that are idle when it starts; light jobs that arrive later
share the machine with it.
"""

from collections import deque
from functools import partial
from typing import Protocol

from vipsrv.errors import Busy, Cancelled, DeadlineExceeded
from vipsrv.workers.channel import MAX_THREADS
from vipsrv.workers.job import Job

_SMOOTHING = 0.1
"""Weight of the newest job in the running mean of processing times."""

_FIRST_GUESS_SECONDS = 0.05
_LEAST_RETRY_MS = 100


class Workers(Protocol):
    """The part of the worker pool that admission uses."""

    @property
    def size(self) -> int:
        """How many workers there should be."""

    @property
    def has_idle(self) -> bool:
        """Whether a job could start at once."""

    @property
    def threads_busy(self) -> int:
        """How many threads all running jobs have together."""

    def run(self, job: Job) -> bool:
        """Give a job to an idle worker; ``False`` if there is none."""

    def cancel(self, job: Job) -> None:
        """Answer a running job with ``Cancelled`` and make its worker stop it."""


class Admission:
    """Two queues of at most ``limit`` jobs each in front of the workers.

    The running heavy jobs share ``memory`` bytes, and all jobs share ``cores``.
    """

    def __init__(self, workers: Workers, *, limit: int, memory: int, cores: int) -> None:
        self._workers = workers
        self._limit = limit
        self._queue: deque[Job] = deque()
        self._heavy: deque[Job] = deque()
        self._heavy_running: set[Job] = set()
        self._heavy_lane = max(1, workers.size // 2)
        self._memory_left = memory
        self._cores = min(cores, workers.size)
        self._heavy_was_last = False
        self._mean_seconds = _FIRST_GUESS_SECONDS

    @property
    def waiting(self) -> int:
        """The number of jobs in both queues."""
        return len(self._queue) + len(self._heavy)

    def check(self) -> None:
        """Raise ``Busy`` if a job submitted now would find the queue full."""
        if len(self._queue) >= self._limit and not self._workers.has_idle:
            raise self._busy(len(self._queue), self._workers.size)

    def submit(self, job: Job) -> None:
        """Start a job or queue it. Raises ``Busy``; the caller then still owns the job."""
        if not self._queue and self._workers.run(job):
            return
        self.check()
        self._queue.append(job)

    def heavy(self, job: Job) -> None:
        """Queue or refuse a job that a worker has found to be heavy and given back."""
        if len(self._heavy) + len(self._heavy_running) < self._limit + self._heavy_lane:
            self._heavy.append(job)
        else:
            job.fail(self._busy(len(self._heavy), self._heavy_lane))
            job.close()

    def worker_idle(self) -> None:
        """Give the next jobs to the workers that are idle."""
        while self._workers.has_idle:
            heavy = self._next_is_heavy()
            queue = self._heavy if heavy else self._queue
            if heavy:
                queue[0].threads = self._threads_for(queue[0])
            if not queue or not self._workers.run(queue[0]):
                return
            job = queue.popleft()
            self._heavy_was_last = heavy
            if heavy:
                self._heavy_running.add(job)
                self._memory_left -= job.memory * job.threads
                job.on_close = partial(self._heavy_ended, job)

    def job_took(self, seconds: float) -> None:
        """Note the processing time of a job, for estimates."""
        self._mean_seconds += _SMOOTHING * (seconds - self._mean_seconds)

    def cancel(self, job: Job) -> None:
        """Answer a job with ``Cancelled``, and stop it or take it out of its queue."""
        for queue in (self._queue, self._heavy):
            if job in queue:
                queue.remove(job)
                job.fail(Cancelled("the client cancelled the request or disconnected"))
                job.close()
                return
        self._workers.cancel(job)

    def watch(self, now: float) -> None:
        """Fail queued jobs after their deadlines. Call it often, with ``time.monotonic()``."""
        for queue in (self._queue, self._heavy):
            for job in [job for job in queue if now > job.deadline]:
                queue.remove(job)
                job.fail(DeadlineExceeded("no worker was free before the deadline"))
                job.close()
        # The next job may start now: the job before it may have been removed.
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
            busy=self._workers.threads_busy,
            waiting=self.waiting - 1,
            memory_left=self._memory_left,
        )

    def _next_is_heavy(self) -> bool:
        if not self._heavy or len(self._heavy_running) >= self._heavy_lane:
            return False
        if self._heavy[0].memory > self._memory_left and self._heavy_running:
            return False
        # With a single worker the two queues take turns.
        return not (self._heavy_was_last and self._queue and self._workers.size == 1)


def threads_for(memory: int, *, cores: int, busy: int, waiting: int, memory_left: int) -> int:
    """Return the threads for a heavy job that takes ``memory`` bytes per thread.

    ``busy`` is how many of the ``cores`` the threads of running jobs use, ``waiting`` how many other jobs
    want one, and ``memory_left`` how many bytes heavy jobs may still take. A light job always has one thread:
    that gives the best throughput when all workers are busy, and a job of 20 ms ends before a second thread
    has woken up.
    """
    share = max(0, cores - busy) // (1 + waiting)
    return max(1, min(share, memory_left // memory, MAX_THREADS))
