"""The gateway's pool of workers: starts them, hands out jobs, and replaces workers that end.

::

    start() ── starts `size` workers, fails with the reason if one cannot start
    idle?  ──► run(job) ──► a WorkerProcess ──► job.answer(…) ──► on_idle()
    watch() ── regularly: deadlines, workers that do not stop, workers that have grown
    a worker ends ── its reason is logged, and a new one takes its place
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from vipsrv.errors import Cancelled, DeadlineExceeded, RequestError, StartFailed
from vipsrv.storage import Spool
from vipsrv.worker_config import WorkerConfig
from vipsrv.workers.channel import Ready
from vipsrv.workers.core_pinning import CorePinning
from vipsrv.workers.job import Job
from vipsrv.workers.launch import Command, worker_command
from vipsrv.workers.process import WorkerProcess

_GROWTH_CHECK_SECONDS = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPolicy:
    """When a worker is killed or replaced, and how often starts are tried again.

    ``start_seconds`` is how long a worker may take to start (a fraction of a second on an idle machine), and
    ``stop_seconds`` how long it may go on with a job that it was told to stop. A worker is replaced after
    ``max_jobs`` jobs, so that no slow leak in a decoder adds up, and when it holds more than
    ``max_anonymous_memory`` bytes while it is idle. One that ends within ``trial_seconds`` of being ready,
    without having had a job, failed to start. After ``free_starts`` failed starts in a row, the next one
    waits ``first_pause`` seconds, doubled each time up to ``longest_pause``.
    """

    start_seconds: float = 60.0
    stop_seconds: float = 1.0
    max_jobs: int = 20_000
    max_anonymous_memory: int = 512 * 1024 * 1024
    trial_seconds: float = 1.0
    free_starts: int = 4
    first_pause: float = 0.1
    longest_pause: float = 30.0

    def pause_after(self, failures: int) -> float:
        """Return the seconds to wait after ``failures`` failed starts in a row."""
        if failures <= self.free_starts:
            return 0.0
        return min(self.longest_pause, self.first_pause * 2.0 ** min(failures - self.free_starts, 16))


_DEFAULT_POLICY = PoolPolicy()


@dataclass(slots=True)
class _Supervision:
    """When the pool kills or checks one worker; times are seconds of ``time.monotonic``."""

    start_by: float | None  # killed if its handshake has not arrived by then; None after the handshake
    kill_at: float | None = None  # killed if it has not stopped its job by then
    check_when_done: bool = False  # whether to look at its memory as soon as its job is done


class WorkerPool:
    """``size`` worker processes, started by ``start`` and replaced when they end.

    ``on_idle`` is called whenever a worker has become free, ``on_heavy`` with a job that a worker has found
    to be heavy and given back. With ``pinned``, each worker keeps to one core. ``command`` makes the command
    line of a worker.
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
        policy: PoolPolicy = _DEFAULT_POLICY,
        command: Command = worker_command,
    ) -> None:
        self._pinning = CorePinning.create() if pinned else None
        self._spool = spool
        self._config = config
        self._size = size
        self._on_idle = on_idle
        self._on_heavy = on_heavy
        self._policy = policy
        self._command = command
        self._workers: dict[WorkerProcess, _Supervision] = {}
        self._idle: list[WorkerProcess] = []
        self._started: asyncio.Future[None] | None = None
        self._failures_in_a_row = 0
        self._reaping: set[asyncio.Task[None]] = set()
        self._next_growth_check = 0.0
        self._stopping = False
        self._ready: Ready | None = None

    @property
    def workers(self) -> frozenset[WorkerProcess]:
        """The workers that run or start."""
        return frozenset(self._workers)

    @property
    def size(self) -> int:
        """The number of workers that the pool maintains."""
        return self._size

    @property
    def formats(self) -> Ready:
        """The handshake of a worker, which names the formats; only after ``start``."""
        if self._ready is None:
            raise RuntimeError("no worker has started yet")
        return self._ready

    @property
    def has_idle(self) -> bool:
        """Whether a worker is free."""
        return bool(self._idle)

    @property
    def idle(self) -> int:
        """How many workers are free."""
        return len(self._idle)

    @property
    def threads_busy(self) -> int:
        """The threads of all running jobs together."""
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
        """Kill all workers and wait until they have exited."""
        self._stopping = True
        for worker in list(self._workers):
            worker.kill("the server is stopping")
        while self._reaping:
            await asyncio.gather(*self._reaping)

    def run(self, job: Job) -> bool:
        """Give a job to an idle worker; ``False`` if there is none."""
        while self._idle:
            # The one that was busy last: its caches are warm.
            worker = self._idle.pop()
            if self._pinning is not None and job.threads > 1:
                self._pinning.spread(worker.pid)
            if worker.run(job):
                return True
        return False

    def stop_job(self, job: Job, error: RequestError) -> None:
        """Answer a running job with ``error`` and make its worker stop it."""
        job.fail(error)
        worker = next((one for one in self._workers if one.job is job), None)
        if worker is not None and self._workers[worker].kill_at is None:
            self._workers[worker].kill_at = time.monotonic() + self._policy.stop_seconds
            worker.cancel()  # may notice that the process has ended

    def cancel(self, job: Job) -> None:
        """Stop a running job whose client no longer waits for it."""
        self.stop_job(job, Cancelled("the client cancelled the request or disconnected"))

    def watch(self, now: float) -> None:
        """Enforce deadlines and replace workers. Call it several times a second with ``time.monotonic()``."""
        for worker, supervision in list(self._workers.items()):
            job = worker.job
            if supervision.kill_at is not None:
                if now > supervision.kill_at:
                    seconds = self._policy.stop_seconds
                    worker.kill(f"it did not stop its job within {seconds:g} s of being told to")
            elif job is not None and now > job.deadline:
                self.stop_job(job, DeadlineExceeded("processing took longer than the deadline allows"))
            elif supervision.start_by is not None and now > supervision.start_by:
                worker.kill(f"it did not start within {self._policy.start_seconds:g} s")
        if now > self._next_growth_check:
            self._next_growth_check = now + _GROWTH_CHECK_SECONDS
            # While requests queue, no worker is idle long enough to be checked here.
            for worker, supervision in self._workers.items():
                supervision.check_when_done = worker.job is not None
            for worker in list(self._idle):
                self._retire_if_grown(worker)
            if self._pinning is not None:
                self._pinning.balance()

    def _retire_if_grown(self, worker: WorkerProcess) -> bool:
        memory = worker.anonymous_memory()
        if memory <= self._policy.max_anonymous_memory and worker.jobs_done < self._policy.max_jobs:
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
            command=self._command,
        )
        self._workers[worker] = _Supervision(start_by=time.monotonic() + self._policy.start_seconds)

    def _worker_idle(self, worker: WorkerProcess) -> None:
        if worker.jobs_done:
            self._failures_in_a_row = 0
        supervision = self._workers[worker]
        supervision.kill_at = None
        if supervision.start_by is not None:
            supervision.start_by = None
            self._worker_started(worker)
        elif self._pinning is not None:
            self._pinning.gather(worker.pid)
        if supervision.check_when_done:
            supervision.check_when_done = False
            if self._retire_if_grown(worker):
                return
        self._idle.append(worker)
        self._on_idle()

    def _worker_started(self, worker: WorkerProcess) -> None:
        self._ready = worker.ready
        if self._pinning is not None:
            self._pinning.add(worker.pid)
        all_started = all(supervision.start_by is None for supervision in self._workers.values())
        if all_started and self._started is not None and not self._started.done():
            self._started.set_result(None)

    def _worker_ended(self, worker: WorkerProcess) -> None:
        self._workers.pop(worker, None)
        if self._pinning is not None:
            self._pinning.remove(worker.pid)
        if worker in self._idle:
            self._idle.remove(worker)
        failed_to_start = (
            not worker.had_job and time.monotonic() < worker.ready_at + self._policy.trial_seconds
        )
        task = asyncio.get_running_loop().create_task(self._reap(worker, failed_to_start=failed_to_start))
        self._reaping.add(task)

    async def _reap(self, worker: WorkerProcess, *, failed_to_start: bool) -> None:
        if not failed_to_start and not self._stopping:
            self._replace()
        try:
            await asyncio.to_thread(worker.reap)
        finally:
            # Not in a done callback: until that has run, `stop` would gather done tasks in an endless loop.
            self._reaping.discard(cast("asyncio.Task[None]", asyncio.current_task()))
        if self._stopping:
            return
        if failed_to_start:
            self._start_failed(worker)
        else:
            level = logging.INFO if worker.retired else logging.WARNING
            _log.log(level, "worker %d ended: %s", worker.pid, worker.end_reason)

    def _start_failed(self, worker: WorkerProcess) -> None:
        if self._started is not None and not self._started.done():
            self._started.set_exception(StartFailed(f"a worker cannot start: {worker.end_reason}"))
            return
        self._failures_in_a_row += 1
        pause = self._policy.pause_after(self._failures_in_a_row)
        _log.error(
            "worker %d ended without having had a job: %s; next try in %g s",
            *(worker.pid, worker.end_reason, pause),
        )
        asyncio.get_running_loop().call_later(pause, self._replace)

    def _replace(self) -> None:
        if self._stopping:
            return
        try:
            self._spawn()
        except OSError as error:
            pause = self._policy.longest_pause
            _log.error("a worker process cannot be started: %s; next try in %g s", error, pause)
            asyncio.get_running_loop().call_later(pause, self._replace)
