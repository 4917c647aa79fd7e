"""The gateway's pool of workers: starts them, hands out jobs, and replaces workers that end.

::

    start() ── starts `size` workers, fails with the reason if one cannot start
    idle?  ──► run(job) ──► a WorkerProcess ──► job.answer(…) ──► on_idle()
    watch() ── regularly: deadlines, workers that do not stop, workers that have grown
    a worker ends ── its reason is logged, and a new one takes its place
    reconfigure(config) ── one after another: a new worker starts, then one with the older config retires

``policy`` says when a worker is killed or replaced; ``process_table`` and ``orphans`` look at what workers do
to the system, ``descriptor_reserve`` keeps what starting one takes.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

from vipsrv.errors import Cancelled, DeadlineExceeded, Draining, RequestError, StartFailed
from vipsrv.storage import Spool
from vipsrv.worker_config import WorkerConfig
from vipsrv.workers.channel import Ready
from vipsrv.workers.core_pinning import CorePinning
from vipsrv.workers.descriptor_reserve import DescriptorReserve, is_used_up
from vipsrv.workers.job import Job
from vipsrv.workers.launch import Command, worker_command
from vipsrv.workers.orphans import Orphans
from vipsrv.workers.policy import PoolPolicy
from vipsrv.workers.process import EndCause, WorkerProcess
from vipsrv.workers.process_table import ProcessStatus, children_of, is_hidden, read_status

_INSPECTION_SECONDS = 1.0

_log = logging.getLogger(__name__)


_DEFAULT_POLICY = PoolPolicy()


@dataclass(slots=True)
class _Supervision:
    """When the pool kills, checks or replaces a worker; times are seconds of ``time.monotonic``."""

    config: WorkerConfig  # with which it was started
    start_by: float | None  # killed if its handshake has not arrived by then; None after the handshake
    kill_at: float | None = None  # killed if it has not stopped its job by then
    headless: bool = False  # when last seen, only its first thread had ended; so it is for a moment at an end
    grown: bool = False  # replaced as soon as it has no job, because it holds too much memory


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
        self._reaping: dict[asyncio.Task[None], int] = {}  # and the process id of the worker
        self._next_inspection = 0.0
        self._unready_since: float | None = time.monotonic()
        self._orphans: Orphans | None = None
        self._reserve: DescriptorReserve | None = None
        self._stopping = False
        self._told_hidden = False
        self._ready: Ready | None = None
        self._jobs_of_ended = 0
        self.ended: Counter[EndCause] = Counter(dict.fromkeys(EndCause, 0))
        """How many workers have ended, by the cause, without those that end because the server stops."""

    @property
    def workers(self) -> frozenset[WorkerProcess]:
        """The workers that run or start."""
        return frozenset(self._workers)

    @property
    def size(self) -> int:
        """The number of workers that the pool maintains."""
        return self._size

    @property
    def pids(self) -> list[int]:
        """The processes that run, start, or have ended and are not reaped yet."""
        return [*(worker.pid for worker in self._workers), *self._reaping.values()]

    @property
    def jobs_done(self) -> int:
        """The number of jobs that workers have answered since the start."""
        return self._jobs_of_ended + sum(worker.jobs_done for worker in self._workers)

    @property
    def formats(self) -> Ready:
        """The handshake of a worker, which names the formats; only after ``start``."""
        if self._ready is None:
            raise RuntimeError("no worker has started yet")
        return self._ready

    @property
    def idle(self) -> int:
        """How many workers are free."""
        return len(self._idle)

    @property
    def has_outdated(self) -> bool:
        """Whether a worker has an older configuration than the last one."""
        return any(map(self._is_outdated, self._workers))

    @property
    def threads_busy(self) -> int:
        """The threads of all running jobs together."""
        return sum(worker.job.threads for worker in self._workers if worker.job is not None)

    def reconfigure(self, config: WorkerConfig, *, max_jobs: int) -> None:
        """Use another configuration and another number of jobs per worker from now on.

        Workers that have the older configuration are replaced one after another, each when it has no job.
        The new one starts first, so there are never fewer than ``size``, and for the time of one job there
        may be one more.
        """
        self._policy = replace(self._policy, max_jobs=max_jobs)
        if config != self._config:
            self._config = config
            self._replace()

    def check_ready(self) -> None:
        """Raise ``Draining`` if no worker has been ready for ``policy.unready_seconds``."""
        if self._unready_since is None:
            return
        seconds = time.monotonic() - self._unready_since
        if seconds > self._policy.unready_seconds:
            raise Draining(f"no worker has been ready for {seconds:.0f} s; the server's log says why")

    async def start(self) -> None:
        """Start all workers. Raises ``StartFailed`` with the reason if one cannot start."""
        self._started = asyncio.get_running_loop().create_future()
        self._orphans = Orphans.create()
        self._reserve = DescriptorReserve()
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
            worker.kill("the server is stopping", EndCause.STOPPING)
        while self._reaping:
            await asyncio.gather(*self._reaping)
        if self._orphans is not None:
            self._orphans.end(own=())
        if self._reserve is not None:
            self._reserve.close()

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
                    worker.kill(
                        f"it did not stop its job within {seconds:g} s of being told to", EndCause.STUCK
                    )
            elif job is not None and now > job.deadline:
                self.stop_job(job, DeadlineExceeded("processing took longer than the deadline allows"))
            elif supervision.start_by is not None and now > supervision.start_by:
                worker.kill(
                    f"it did not start within {self._policy.start_seconds:g} s", EndCause.START_TIMEOUT
                )
        if now > self._next_inspection:
            self._next_inspection = now + _INSPECTION_SECONDS
            self._inspect()

    def _inspect(self) -> None:
        """Kill workers that do to the system what they must not, and replace those that have grown."""
        for worker, supervision in list(self._workers.items()):
            status = read_status(worker.pid)
            if status is None:
                self._warn_if_hidden(worker)
            elif (offence := self._offence(worker, supervision, status)) is not None:
                worker.kill(offence)
            elif status.memory > self._policy.max_memory:
                # While requests queue, no worker is idle long enough to be seen idle here.
                supervision.grown = worker.job is not None
                if worker in self._idle:
                    self._retire(worker, f"it has grown to {status.memory >> 20} MiB", EndCause.MEMORY)
        if self._orphans is not None:
            self._orphans.end(own={*(worker.pid for worker in self._workers), *self._reaping.values()})
        if self._reserve is not None:
            self._reserve.refill()
        if self._pinning is not None:
            self._pinning.balance()

    def _offence(self, worker: WorkerProcess, supervision: _Supervision, status: ProcessStatus) -> str | None:
        """Return what a worker does that none does, as the reason to kill it."""
        headless, supervision.headless = (
            supervision.headless,
            status.first_thread_ended and status.threads > 1,
        )
        if headless and supervision.headless:
            return "its first thread has ended and others go on, which no worker does"
        if status.threads > self._policy.max_threads:
            return f"it has {status.threads} threads; {self._policy.max_threads} are allowed"
        if children_of(worker.pid):
            return "it has started a process, which no worker does"
        return None

    def _warn_if_hidden(self, worker: WorkerProcess) -> None:
        if not self._told_hidden and is_hidden(worker.pid):
            self._told_hidden = True
            _log.warning(
                "/proc hides the workers from the server (hidepid, ProtectProc=): their memory, threads and "
                "child processes are not checked"
            )

    def _retire_if_due(self, worker: WorkerProcess) -> bool:
        """Retire a worker that has no job if it should have none any more; return whether it was."""
        if worker.jobs_done >= self._policy.max_jobs:
            self._retire(worker, f"it has done {worker.jobs_done} jobs", EndCause.JOBS)
            return True
        if self._is_outdated(worker) and self._ready_workers > self._size:
            self._retire(worker, "the settings were reloaded", EndCause.SETTINGS)
            return True
        if self._workers[worker].grown:
            self._workers[worker].grown = False
            status = read_status(worker.pid)  # the memory of the job itself is free by now
            if status is not None and status.memory > self._policy.max_memory:
                self._retire(worker, f"it has grown to {status.memory >> 20} MiB", EndCause.MEMORY)
                return True
        return False

    def _retire(self, worker: WorkerProcess, reason: str, cause: EndCause) -> None:
        worker.retire(f"it was retired: {reason}", cause)

    def _spawn(self) -> None:
        """Start a worker. Raises ``OSError``."""
        try:
            worker = self._new_worker()
        except OSError as error:
            if self._reserve is None or not is_used_up(error):
                raise
            with self._reserve.lent():
                worker = self._new_worker()
        self._workers[worker] = _Supervision(
            config=self._config, start_by=time.monotonic() + self._policy.start_seconds
        )

    def _new_worker(self) -> WorkerProcess:
        return WorkerProcess(
            asyncio.get_running_loop(),
            self._spool,
            self._config,
            on_idle=self._worker_idle,
            on_heavy=self._on_heavy,
            on_end=self._worker_ended,
            command=self._command,
        )

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
        if self._retire_if_due(worker):
            return
        self._idle.append(worker)
        if len(self._workers) > self._size:
            self._retire_outdated()
        self._on_idle()

    def _retire_outdated(self) -> None:
        """Retire an idle worker that has an older configuration if its replacement is ready."""
        if self._ready_workers > self._size:
            outdated = next(filter(self._is_outdated, self._idle), None)
            if outdated is not None:
                self._retire(outdated, "the settings were reloaded", EndCause.SETTINGS)

    def _is_outdated(self, worker: WorkerProcess) -> bool:
        config = self._workers[worker].config
        return config is not self._config and config != self._config  # asked for each job

    def _worker_started(self, worker: WorkerProcess) -> None:
        self._ready = worker.ready
        self._unready_since = None
        if self._pinning is not None:
            self._pinning.add(worker.pid)
        all_started = all(supervision.start_by is None for supervision in self._workers.values())
        if all_started and len(self._workers) == self._size and self._starting is not None:
            self._starting.set_result(None)

    def _worker_ended(self, worker: WorkerProcess) -> None:
        supervision = self._workers.pop(worker, None)
        if supervision is not None and supervision.config != self._config and not self.has_outdated:
            _log.info("all workers have the reloaded settings")
        if self._unready_since is None and not self._ready_workers:
            self._unready_since = time.monotonic()
        if self._pinning is not None:
            self._pinning.remove(worker.pid)
        if worker in self._idle:
            self._idle.remove(worker)
        failed_to_start = (
            not worker.retired
            and not worker.had_job
            and time.monotonic() < worker.ready_at + self._policy.trial_seconds
        )
        self._jobs_of_ended += worker.jobs_done
        cause = worker.end_cause
        if failed_to_start and cause is EndCause.CRASHED:
            cause = EndCause.START_FAILED
        if not self._stopping:
            self.ended[cause] += 1
        task = asyncio.get_running_loop().create_task(self._reap(worker, failed_to_start=failed_to_start))
        self._reaping[task] = worker.pid

    async def _reap(self, worker: WorkerProcess, *, failed_to_start: bool) -> None:
        if not failed_to_start and not self._stopping:
            self._replace()
        try:
            await worker.reap()
        finally:
            # Not in a done callback: until that has run, `stop` would gather done tasks in an endless loop.
            del self._reaping[cast("asyncio.Task[None]", asyncio.current_task())]
        if self._stopping:
            return
        if failed_to_start:
            self._start_failed(worker)
        else:
            level = logging.INFO if worker.retired else logging.WARNING
            _log.log(level, "worker %d ended: %s", worker.pid, worker.end_reason)

    def _start_failed(self, worker: WorkerProcess) -> None:
        self._failures_in_a_row += 1
        if self._starting is not None:
            if worker.crashed and self._failures_in_a_row < self._policy.start_tries:
                _log.warning("worker %d ended while it started: %s; next try", worker.pid, worker.end_reason)
                self._replace()
            else:
                self._starting.set_exception(StartFailed(f"a worker cannot start: {worker.end_reason}"))
            return
        pause = self._policy.pause_after(self._failures_in_a_row)
        if self._ready_workers >= self._size:
            pause = self._policy.longest_pause  # the workers that it should replace go on, so there is time
        _log.error(
            "worker %d ended without having had a job: %s; next try in %g s",
            *(worker.pid, worker.end_reason, pause),
        )
        asyncio.get_running_loop().call_later(pause, self._replace)

    @property
    def _starting(self) -> "asyncio.Future[None] | None":
        """The future of ``start`` while it waits."""
        return None if self._started is None or self._started.done() else self._started

    @property
    def _ready_workers(self) -> int:
        """How many workers have started."""
        return sum(supervision.start_by is None for supervision in self._workers.values())

    def _replace(self) -> None:
        """Start a worker in place of one that has ended, or before one ends that is outdated."""
        if self._stopping or len(self._workers) > self._size:
            return
        if len(self._workers) == self._size and not self.has_outdated:
            return
        try:
            self._spawn()
        except OSError as error:
            if self._starting is not None:
                self._starting.set_exception(error)
                return
            pause = self._policy.longest_pause
            _log.error("a worker process cannot be started: %s; next try in %g s", error, pause)
            asyncio.get_running_loop().call_later(pause, self._replace)
