"""The gateway's side of one worker process: its start, its jobs, its end.

::

                 READY                run(job)               reply complete
    STARTING ───────────► IDLE ─────────────────► BUSY ─────────────────────► IDLE
        │                   │                       │
        └───────────────────┴── end of its stream, a broken protocol, kill() ──► ENDED (reaped, reason known)

``sender`` and ``reply_reader`` send and receive its messages.
"""

import array
import asyncio
import math
import os
import socket
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, StrEnum, auto

from vipsrv.errors import RequestError, WorkerDied
from vipsrv.storage import Slot, Spool
from vipsrv.worker_config import WorkerConfig
from vipsrv.workers.channel import Carrier, JobHead, Operation, Ready, ReplyHead
from vipsrv.workers.job import Job, Outcome
from vipsrv.workers.launch import Command, exit_reason, launch, worker_command
from vipsrv.workers.reply_reader import ReplyHandlers, ReplyLimits, WorkerReply, WorkerReplyReader
from vipsrv.workers.sender import Sender
from vipsrv.workers.suspicion import reason_to_distrust

MAX_START_REASON = 4096
"""Bytes of standard error that are read from a worker that could not start."""

LEAVE_SECONDS = 1.0
"""How long a worker may take to exit once its socket is closed, by either side, before it is killed."""

_FIRST_POLL, _LONGEST_POLL = 0.002, 0.05
"""Seconds between two looks at whether a process has exited: doubled from the first to the longest."""


class WorkerState(Enum):
    """The states of a worker process; see the diagram above."""

    # Members are compared by identity. Enum's own hash is a Python function, and states change for every job.
    __hash__ = object.__hash__

    STARTING = auto()
    IDLE = auto()
    BUSY = auto()
    ENDED = auto()


class EndCause(StrEnum):
    """Why a worker has ended, for the metrics; ``end_reason`` says it in words."""

    CRASHED = "crashed"
    """By itself: by a signal, also of the kernel when memory is used up, or by exiting."""
    STUCK = "stuck"
    """It did not stop its job when told to."""
    MISBEHAVED = "misbehaved"
    """It did what no worker does: broke the protocol, started a process, or had too many threads."""
    DISTRUSTED = "distrusted"
    """It replied with an unexpected error, or with one that cannot be true."""
    START_FAILED = "start_failed"
    """It ended before it had a job."""
    START_TIMEOUT = "start_timeout"
    """It did not start in time."""
    JOBS = "jobs"
    """It had done its number of jobs (``--jobs-per-worker``)."""
    MEMORY = "memory"
    """It had grown too large."""
    SETTINGS = "settings"
    """It had older settings than those that were reloaded."""
    STOPPING = "stopping"
    """The server stops."""


TRANSITIONS: dict[WorkerState, frozenset[WorkerState]] = {
    WorkerState.STARTING: frozenset({WorkerState.IDLE, WorkerState.ENDED}),
    WorkerState.IDLE: frozenset({WorkerState.BUSY, WorkerState.ENDED}),
    WorkerState.BUSY: frozenset({WorkerState.IDLE, WorkerState.ENDED}),
    WorkerState.ENDED: frozenset(),
}
"""The states that may follow each state."""


class WorkerProcess:
    """A process that runs ``python -m vipsrv.workers.child``, and the gateway's end of its socket.

    Raises ``OSError`` if the system has no room for one. ``on_idle`` is called when it is ready for a job
    (after the handshake and after each job), ``on_heavy`` with a job that it has found to be heavy and given
    back, ``on_end`` once when it has ended.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        spool: Spool,
        config: WorkerConfig,
        *,
        on_idle: Callable[["WorkerProcess"], None],
        on_heavy: Callable[[Job], None],
        on_end: Callable[["WorkerProcess"], None],
        command: Command = worker_command,
    ) -> None:
        self._on_idle = on_idle
        self._on_heavy = on_heavy
        self._on_end = on_end
        self._state = WorkerState.STARTING
        self.ready: Ready | None = None
        self.ready_at = math.inf  # of time.monotonic
        self.job: Job | None = None
        self.jobs_done = 0
        self.had_job = False
        self.retired = False
        self.end_reason = ""
        self.end_cause = EndCause.CRASHED  # unless `kill` or `retire` says otherwise
        self.crashed = False
        """Whether the process ended by a signal that is not the gateway's; known once it is reaped."""
        self._kill_reason: str | None = None
        launched = launch(config, command)
        self._process = launched.process
        self._channel = launched.channel
        self._shared = launched.shared
        self._sender = Sender(loop, self._channel, self._end)
        self._replies = WorkerReplyReader(
            loop,
            self._channel,
            spool,
            ReplyLimits(output_pixels=config.max_output_pixels, memory=config.job_memory),
            ReplyHandlers(
                ready=self._handshake_complete,
                replied=self._replied,
                no_room=self._no_room_for_result,
                broke_protocol=self.kill,
                ended=self._end,
            ),
        )

    @property
    def state(self) -> WorkerState:
        """The current state."""
        return self._state

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def run(self, job: Job) -> bool:
        """Give a job to this idle worker; ``False``, with the job untouched, if the process has ended."""
        now = time.monotonic()
        image = job.image
        views, ancillary = [], []
        if image.descriptor is not None:
            carrier = Carrier.DESCRIPTOR
            ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [image.descriptor])))
        elif self._shared is not None:
            carrier = Carrier.SHARED
            self._shared.put(image.views)
        else:
            carrier = Carrier.INLINE
            views = image.views
        head = JobHead(
            operation=job.operation,
            job_id=job.id,
            carrier=carrier,
            options_size=len(job.options),
            image_size=image.size,
            deadline_ms=max(1, int((job.deadline - now) * 1000)),
            admitted=bool(job.memory),
            threads=job.threads,
        )
        try:
            self._sender.send([memoryview(head.pack() + job.options), *views], ancillary)
        except OSError:
            self._end()
            return False
        self.job = job
        self.had_job = True
        job.started = now
        job.worker = self._process.pid
        self._enter(WorkerState.BUSY)
        self._replies.expect(job)
        return True

    def cancel(self) -> None:
        """Tell the worker to stop its job; it still sends a reply."""
        if self.job is not None:
            cancel = JobHead(operation=Operation.CANCEL, job_id=self.job.id)
            self._sender.append(memoryview(cancel.pack()))

    def retire(self, reason: str, cause: EndCause) -> None:
        """End an idle worker gently, as planned: it exits when its socket is closed."""
        self.retired = True
        self._kill_reason = reason
        self.end_cause = cause
        self._end()

    def kill(self, reason: str, cause: EndCause = EndCause.MISBEHAVED) -> None:
        """End it at once, for a reason that completes the sentence "worker 7 ended: …"."""
        if self._state is not WorkerState.ENDED:
            self._kill_reason = reason
            self.end_cause = cause
            self._process.kill()
            self._end()

    async def reap(self) -> None:
        """Wait until the process has exited and find out why.

        This polls, because a thread that waits cannot be started where the number of tasks is limited.
        """
        kill_at = time.monotonic() + LEAVE_SECONDS
        pause = _FIRST_POLL
        while (status := self._process.poll()) is None:
            if time.monotonic() > kill_at:
                kill_at = math.inf
                self._process.kill()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL)
        self.crashed = status < 0 and self._kill_reason is None and kill_at < math.inf
        reason = self._kill_reason or exit_reason(status)
        message = self._last_words()
        self.end_reason = f"{reason}: {message}" if message else reason

    def _last_words(self) -> str:
        """What a worker that could not start has written to standard error."""
        if self._process.stderr is None or self._process.stderr.closed:
            return ""
        data = b""
        with self._process.stderr as stderr, suppress(OSError):
            # Another process may hold the other end and never close it.
            os.set_blocking(stderr.fileno(), False)
            data = os.read(stderr.fileno(), MAX_START_REASON)
        return data.decode("utf-8", "replace").strip()

    def _enter(self, state: WorkerState) -> None:
        assert state in TRANSITIONS[self._state], (self._state, state)  # noqa: S101 - would be a bug in here
        self._state = state

    def _end(self) -> None:
        self._enter(WorkerState.ENDED)
        self._replies.close()
        self._sender.close()
        self._channel.close()
        if self._shared is not None:
            self._shared.close()
        job, self.job = self.job, None
        if job is not None:
            job.worker_lost = True
            job.fail(WorkerDied("the worker process ended while it had this image; retry once at most"))
            job.close()
        self._on_end(self)

    def _handshake_complete(self, ready: Ready) -> None:
        self.ready = ready
        self.ready_at = time.monotonic()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._become_idle()

    def _no_room_for_result(self, error: RequestError) -> None:
        """Fail the job whose result cannot be stored. The worker is free when the result has been read."""
        assert self.job is not None  # noqa: S101 - the state is BUSY
        self.job.fail(error)

    def _replied(self, reply: WorkerReply) -> None:
        job, self.job = self.job, None
        assert job is not None  # noqa: S101 - the state is BUSY
        self.jobs_done += 1
        if self._sender.busy:
            # It replied before it had the whole image; the rest would be taken for the next job.
            self.kill("it replied before it had been given its job")
        distrust = (
            None if reply.head.error is None else reason_to_distrust(reply.head.error, reply.arrived, job)
        )
        job.worker_lost = distrust is not None
        if reply.head.needs:
            self._give_back(job, reply.head)
        else:
            self._finish(job, reply)
        if distrust is not None:
            self.kill(distrust, EndCause.DISTRUSTED)
        if self._state is WorkerState.BUSY:
            self._become_idle()

    def _finish(self, job: Job, reply: WorkerReply) -> None:
        outcome = Outcome(
            source=reply.head.source,
            outputs=reply.head.outputs,
            digests=reply.head.digests,
            placeholder=reply.head.placeholder,
            result=reply.result,
            error=reply.head.error,
            started=job.started,
            ended=reply.arrived,
            worker=job.worker,
        )
        job.close()
        if reply.result is None:
            job.answer(outcome)
        else:
            _answer_when_complete(job, outcome, reply.result)

    def _give_back(self, job: Job, head: ReplyHead) -> None:
        """Give a heavy job back to the owner: it has to wait for its turn."""
        if job.answered:
            job.close()
        else:
            job.memory = head.needs
            job.predicted_seconds = head.needs_ms / 1000
            self._on_heavy(job)

    def _become_idle(self) -> None:
        self._enter(WorkerState.IDLE)
        self._on_idle(self)


def _answer_when_complete(job: Job, outcome: Outcome, result: Slot) -> None:
    """Answer, or wait until a large result has been written to its file."""
    try:
        if result.complete:
            job.answer(outcome)
        else:
            result.on_ready = lambda: _answer_when_complete(job, outcome, result)
    except RequestError as error:
        result.close()
        job.fail(error)
