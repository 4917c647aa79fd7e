"""The gateway's side of all workers: starts them, hands out jobs, and replaces those that end.

::

    start() ── spawns `size` workers, fails with the reason if one cannot start
    idle?  ──► run(job) ──► a WorkerProcess ──► job.answer(…) ──► on_idle()
    watch() ── now and then: deadlines, workers that do not stop, workers that have grown
    a worker ends ── its reason is logged, a new one takes its place
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import asdict

from vipsrv.errors import Cancelled, DeadlineExceeded, RequestError, StartFailed
from vipsrv.storage.spool import Spool
from vipsrv.worker_config import WorkerConfig
from vipsrv.workers.channel import Ready
from vipsrv.workers.core_pinning import Placement
from vipsrv.workers.job import Job
from vipsrv.workers.process import State, WorkerProcess

START_SECONDS = 60.0
"""How long a worker may take to start; it takes a fraction of a second on an idle machine."""

STOP_SECONDS = 1.0
"""How long a worker that was told to stop its job may go on before it is killed."""

MAX_JOBS = 20_000
"""Jobs after which a worker is replaced, so that no slow leak in a decoder adds up."""

MAX_ANONYMOUS_MEMORY = 512 * 1024 * 1024
"""Bytes that an idle worker may hold before it is replaced."""

_GROWTH_CHECK_SECONDS = 1.0
_TRIAL_SECONDS = 1.0  # after it was ready: a worker that ends within them, without a job, failed to start
_FREE_STARTS = 4
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 30.0
"""After so many failed starts in a row, the next one waits: seconds, doubled each time up to the longest."""

_log = logging.getLogger(__name__)


class WorkerPool:
    """``size`` workers. ``on_idle`` is called whenever one has become free for a job, ``on_heavy`` with a job
    that a worker has found to be a heavy one, and given back. With ``pinned`` each keeps to a core.
    """

    def __init__(
        self,
        spool: Spool,
        config: WorkerConfig,
        *,
        size: int,
        on_idle: Callable[[], None],
        on_heavy: Callable[[Job], None],
        pinned: bool = False,
    ) -> None:
        self._placement = Placement.create() if pinned else None
        self._spool = spool
        self._config = asdict(config)
        self._size = size
        self._on_idle = on_idle
        self._on_heavy = on_heavy
        self._workers: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        self._kill_at: dict[WorkerProcess, float] = {}
        self._start_deadlines: dict[WorkerProcess, float] = {}
        self._started: asyncio.Future[None] | None = None
        self._failures_in_a_row = 0
        self._reaping: set[asyncio.Task[None]] = set()
        self._next_growth_check = 0.0
        self._check_when_done: set[WorkerProcess] = set()
        self._stopping = False
        self._ready: Ready | None = None

    @property
    def size(self) -> int:
        """How many workers there should be."""
        return self._size

    @property
    def formats(self) -> Ready:
        """What the workers read and write, once they have started."""
        if self._ready is None:
            raise RuntimeError("no worker has started yet")
        return self._ready

    @property
    def has_idle(self) -> bool:
        """Whether a job could start at once."""
        return bool(self._idle)

    @property
    def threads_busy(self) -> int:
        """How many threads the running jobs have together."""
        return sum(worker.job.threads for worker in self._workers if worker.job is not None)

    async def start(self) -> None:
        """Start all workers. Raises ``StartFailed`` with the reason if one cannot start."""
        self._started = asyncio.get_running_loop().create_future()
        try:
            for _ in range(self._size):
                self._spawn()
            await self._started
        except OSError as error:
            await self.stop()
            raise StartFailed(f"a worker process cannot be started: {error}") from None
        except StartFailed:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Kill all workers and wait until they are gone."""
        self._stopping = True
        for worker in list(self._workers):
            worker.kill("the server stops")
        while self._reaping:
            reaped = tuple(self._reaping)
            await asyncio.gather(*reaped)
            # From Python 3.12 on, to gather what is done lets no callback run, and so none that discards.
            self._reaping.difference_update(reaped)

    def run(self, job: Job) -> bool:
        """Give a job to an idle worker; ``False`` if there is none after all."""
        while self._idle:
            # The last one that was busy: its caches are warm.
            worker = self._idle.pop()
            if self._placement is not None and job.threads > 1:
                self._placement.spread(worker.pid)
            if worker.run(job):
                return True
        return False

    def stop_job(self, job: Job, error: RequestError) -> None:
        """Answer a running job with ``error`` and have its worker stop it."""
        job.fail(error)
        worker = next((one for one in self._workers if one.job is job), None)
        if worker is not None and worker not in self._kill_at:
            self._kill_at[worker] = time.monotonic() + STOP_SECONDS
            worker.cancel()  # which may find that it is gone

    def cancel(self, job: Job) -> None:
        """Nobody waits for a running job any more."""
        self.stop_job(job, Cancelled("the client cancelled the request or went away"))

    def watch(self, now: float) -> None:
        """To be called several times a second with ``time.monotonic()``."""
        for worker in list(self._workers):
            job = worker.job
            if worker in self._kill_at:
                if now > self._kill_at[worker]:
                    worker.kill(f"it did not stop its job within {STOP_SECONDS:g} s of being told to")
            elif job is not None and now > job.deadline:
                self.stop_job(job, DeadlineExceeded("processing took longer than the deadline allows"))
            elif worker.state is State.STARTING and now > self._start_deadlines[worker]:
                worker.kill(f"it did not start within {START_SECONDS:g} s")
        if now > self._next_growth_check:
            self._next_growth_check = now + _GROWTH_CHECK_SECONDS
            # On a server with a queue, none is idle for long enough to be met here.
            self._check_when_done = {worker for worker in self._workers if worker.job is not None}
            for worker in list(self._idle):
                self._retire_if_grown(worker)
            if self._placement is not None:
                self._placement.balance()

    def _retire_if_grown(self, worker: WorkerProcess) -> bool:
        memory = worker.anonymous_memory()
        if memory <= MAX_ANONYMOUS_MEMORY and worker.jobs_done < MAX_JOBS:
            return False
        _log.info("worker %d is replaced: %d jobs, %d MB", worker.pid, worker.jobs_done, memory >> 20)
        worker.retire()
        return True

    def _spawn(self) -> None:
        worker = WorkerProcess(
            asyncio.get_running_loop(),
            self._spool,
            self._config,
            on_idle=self._worker_idle,
            on_heavy=self._on_heavy,
            on_end=self._worker_ended,
        )
        self._workers.add(worker)
        self._start_deadlines[worker] = time.monotonic() + START_SECONDS

    def _worker_idle(self, worker: WorkerProcess) -> None:
        if worker.jobs_done:
            self._failures_in_a_row = 0
        is_new = self._start_deadlines.pop(worker, None) is not None
        if self._placement is not None:
            (self._placement.add if is_new else self._placement.gather)(worker.pid)
        if is_new:
            self._ready = worker.ready
            if self._started is not None and not self._start_deadlines and not self._started.done():
                self._started.set_result(None)
        self._kill_at.pop(worker, None)
        if worker in self._check_when_done:
            self._check_when_done.discard(worker)
            if self._retire_if_grown(worker):
                return
        self._idle.append(worker)
        self._on_idle()

    def _worker_ended(self, worker: WorkerProcess) -> None:
        self._workers.discard(worker)
        self._check_when_done.discard(worker)
        self._kill_at.pop(worker, None)
        if self._placement is not None:
            self._placement.remove(worker.pid)
        if worker in self._idle:
            self._idle.remove(worker)
        self._start_deadlines.pop(worker, None)
        failed_to_start = not worker.had_job and time.monotonic() < worker.ready_at + _TRIAL_SECONDS
        task = asyncio.get_running_loop().create_task(self._reap(worker, failed_to_start=failed_to_start))
        self._reaping.add(task)
        task.add_done_callback(self._reaping.discard)

    async def _reap(self, worker: WorkerProcess, *, failed_to_start: bool) -> None:
        if not failed_to_start and not self._stopping:
            self._replace()
        await asyncio.to_thread(worker.reap)
        if self._stopping:
            return
        told = (worker.pid, worker.end_reason)
        if not failed_to_start:
            level = logging.INFO if worker.retired else logging.WARNING
            _log.log(level, "worker %d ended: %s", *told)
            return
        if self._started is not None and not self._started.done():
            self._started.set_exception(StartFailed(f"a worker cannot start: {worker.end_reason}"))
            return
        self._failures_in_a_row += 1
        pause = 0.0
        if self._failures_in_a_row > _FREE_STARTS:
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures_in_a_row - _FREE_STARTS, 16))
        _log.error("worker %d ended: %s; it did nothing; next try in %g s", *told, pause)
        asyncio.get_running_loop().call_later(pause, self._replace)

    def _replace(self) -> None:
        if self._stopping:
            return
        try:
            self._spawn()
        except OSError as error:
            _log.error("a worker process cannot be started: %s; next try in %g s", error, _LONGEST_PAUSE)
            asyncio.get_running_loop().call_later(_LONGEST_PAUSE, self._replace)
