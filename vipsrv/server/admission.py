"""Admission of jobs: which may wait for a worker, and which one runs next.

::

    submit ──► light lane ─────────► worker ──► outcome
                                       │ "this job is heavy: it needs so much memory"
               heavy lane ◄────────────┘
                    └── when the lane and the memory have room ──► worker ──► outcome

The jobs of both lanes wait in a fair queue, which shares the workers between client addresses and, within an
address, between connections (``fair_queue``). Each lane has its own limit, so that waiting heavy jobs do not
keep light ones out, and an address has a lower one. A full lane still takes the jobs of addresses that have
none in it, up to twice its limit, so that a few clients cannot shut out the others. Beyond a limit a request
is refused; the time after which to try again is estimated from how long the waiting jobs will take. The heavy
lane is half of the workers, so that heavy jobs never occupy all of them, and its jobs share a budget of
memory. A heavy job also gets the cores that are idle when it starts; light jobs that arrive later share the
machine with it.
"""

import asyncio
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Protocol

from vipsrv.errors import Busy, Cancelled, DeadlineExceeded, Limit, RequestError
from vipsrv.server.accounts import Flow
from vipsrv.server.deficit_round_robin import Lane, Request
from vipsrv.server.fair_queue import FairQueue, Ticket, TicketState
from vipsrv.workers.channel import MAX_THREADS, Operation
from vipsrv.workers.job import Job

_LEAST_RETRY_MS = 100

RESTART_SECONDS = 0.5
"""Worker seconds that a job is charged beside its own time if its worker has to be replaced."""

_TIMER_ERROR = 0.001
"""Seconds by which a timer is late on purpose: those of uvloop are up to 0.4 ms early."""

# The kinds of jobs whose costs are predicted separately. Not enums: the hash of an enum is a Python function.
_RESIZE, _INFO, _HEAVY, _CANARY = "resize", "info", "heavy", "canary"


class Workers(Protocol):
    """The part of the worker pool that admission uses."""

    @property
    def size(self) -> int:
        """How many workers there should be."""

    @property
    def idle(self) -> int:
        """How many jobs could start at once."""

    @property
    def threads_busy(self) -> int:
        """How many threads all running jobs have together."""

    def run(self, job: Job) -> bool:
        """Give a job to an idle worker; ``False`` if there is none."""

    def cancel(self, job: Job) -> None:
        """Answer a running job with ``Cancelled`` and make its worker stop it."""


CallAt = Callable[[float, Callable[[], None]], object]
"""Calls a function at a time of the clock; that of the running event loop by default."""


def call_at(when: float, call: Callable[[], None]) -> None:
    """Call ``call`` at a time of ``time.monotonic``, or up to a millisecond later, but never earlier."""
    asyncio.get_running_loop().call_later(max(0.0, when - time.monotonic()) + _TIMER_ERROR, call)


@dataclass(frozen=True, slots=True)
class AdmissionUse:
    """The jobs of each lane that wait and run, and the bytes of memory that running heavy jobs may take.

    ``heavy_jobs`` counts those that were found to be heavy since the start.
    """

    light_waiting: int
    heavy_waiting: int
    waiting_limit: int
    light_running: int
    heavy_running: int
    memory: int
    memory_limit: int
    heavy_jobs: int


class Admission:
    """A fair queue in front of the workers.

    ``limit`` jobs may wait in each lane, ``per_client`` of them of one client address; addresses that have
    none waiting may double ``limit``. The running heavy jobs share ``memory`` bytes, and all jobs share
    ``cores``. ``clock`` and ``call_at`` are for tests.
    """

    def __init__(
        self,
        workers: Workers,
        *,
        limit: int,
        per_client: int,
        memory: int,
        cores: int,
        clock: Callable[[], float] = time.monotonic,
        call_at: CallAt = call_at,
    ) -> None:
        self._workers = workers
        self._limit = limit
        self._per_client = per_client
        self._queue: FairQueue[Job] = FairQueue()
        self._tickets: dict[Job, Ticket[Job]] = {}  # of all jobs that wait or run
        self._heavy_running = 0
        self._heavy_lane = max(1, workers.size // 2)
        self._memory = memory
        self._memory_left = memory
        self._heavy_without_memory: Ticket[Job] | None = None  # its turn has come, but not its memory
        self._cores = min(cores, workers.size)
        self._heavy_was_last = False
        self._clock = clock
        self._call_at = call_at
        self._wakes_at = inf
        self._heavy_jobs = 0

    @property
    def waiting(self) -> int:
        """The number of jobs in both lanes."""
        return len(self._queue)

    @property
    def use(self) -> AdmissionUse:
        """What waits and runs at the moment."""
        queue = self._queue
        running = len(self._tickets) - len(queue)
        return AdmissionUse(
            light_waiting=queue.light,
            heavy_waiting=queue.heavy,
            waiting_limit=self._limit,
            light_running=running - self._heavy_running,
            heavy_running=self._heavy_running,
            memory=self._memory - self._memory_left,
            memory_limit=self._memory,
            heavy_jobs=self._heavy_jobs,
        )

    def change_limits(self, *, limit: int, per_client: int, memory: int) -> None:
        """Use other limits from now on. What waits or runs already stays, even if it is more."""
        self._limit = limit
        self._per_client = per_client
        self._memory_left += memory - self._memory
        self._memory = memory
        self.worker_idle()  # a heavy job may have memory now

    def check(self, flow: Flow) -> None:
        """Raise ``Busy`` if a job of this flow submitted now would find the queue full."""
        queue = self._queue
        waiting = queue.light
        own = queue.waiting_of(flow.account.key, Lane.LIGHT)
        if not own and self._workers.idle:
            return  # if others wait, the idle worker is held for a job like this
        if own >= self._per_client:
            raise self._busy_client(flow.account.key, own, Lane.LIGHT)
        if waiting >= self._limit and (own or waiting >= 2 * self._limit):
            raise self._busy(waiting, Lane.LIGHT)

    def submit(self, job: Job, flow: Flow) -> None:
        """Start a job or queue it. Raises ``Busy``; the caller then still owns the job."""
        self.check(flow)
        self._tickets[job] = self._queue.add(
            job,
            flow.account.key,
            flow,
            lane=Lane.LIGHT,
            kind=_RESIZE if job.operation is Operation.RESIZE else _INFO,
            now=self._clock(),
            weight=flow.account.weight,
        )
        if self._workers.idle:
            self.worker_idle()

    def submit_canary(self, job: Job, flow: Flow) -> None:
        """Start a job of the server's own, or queue it as the next one, whatever the limits say.

        ``flow`` has no other jobs. What the job costs is not taken for the cost of a client's.
        """
        ticket = self._tickets[job] = self._queue.add(
            job, flow.account.key, flow, lane=Lane.LIGHT, kind=_CANARY, now=self._clock()
        )
        self._queue.goes_first(ticket)
        self.worker_idle()

    def requeue_as_heavy(self, job: Job) -> None:
        """Queue or refuse a job that a worker has found to be heavy and given back."""
        now = self._clock()
        self._heavy_jobs += 1
        job.on_close = None
        first = self._tickets.pop(job)
        account = first.share.account.key
        refusal = self._refuse_heavy(account)
        if refusal is None:
            self._tickets[job] = self._queue.add(
                job,
                account,
                first.share.key,
                lane=Lane.HEAVY,
                kind=_HEAVY,
                now=now,
                cost=min(job.predicted_seconds, max(0.0, job.deadline - now)) or None,
                weight=first.share.account.weight,
            )
        self._queue.end(first, now - job.started, now)
        if refusal is not None:
            job.fail(refusal)
            job.close()

    def worker_idle(self) -> None:
        """Give the next jobs to the workers that are idle."""
        workers, queue = self._workers, self._queue
        while (idle := workers.idle) and (queue.light or queue.heavy):
            request = Request(self._clock(), idle, workers.size)
            ticket = self._next(request) if queue.heavy else queue.next(request)
            if ticket is None:
                if request.wake_at < inf:
                    self._wake_at(request.wake_at)
                return
            job = ticket.item
            heavy = ticket.lane is Lane.HEAVY
            if heavy:
                job.threads = self._threads_for(job)
            if not workers.run(job):
                return
            queue.start(ticket)
            job.on_close = partial(self._ended, ticket)
            self._heavy_was_last = heavy
            if heavy:
                self._heavy_without_memory = None
                self._heavy_running += 1
                self._memory_left -= job.memory * job.threads

    def cancel(self, job: Job) -> None:
        """Answer a job with ``Cancelled``, and stop it or take it out of its queue."""
        ticket = self._tickets.get(job)
        if ticket is not None and ticket.state is TicketState.WAITING:
            self._give_up(ticket, Cancelled("the client cancelled the request or disconnected"))
        else:
            self._workers.cancel(job)

    def flow_closed(self, flow: Flow) -> None:
        """Forget a connection that is closed. Call it after its jobs have been cancelled."""
        self._queue.flow_closed(flow.account.key, flow)

    def watch(self, now: float) -> None:
        """Fail queued jobs after their deadlines. Call it often, with ``time.monotonic()``."""
        for ticket in self._queue:
            # Each job that is given up may start or end others.
            if ticket.state is TicketState.WAITING and now > ticket.item.deadline:
                self._give_up(ticket, DeadlineExceeded("no worker was free before the deadline"))
        self._queue.sweep(now)
        # The next job may start now: the job before it may have been removed.
        self.worker_idle()

    def _next(self, request: Request) -> Ticket[Job] | None:
        """Return the job to start next, if there is one and the workers are not held for another."""
        request.lanes = (True, self._heavy_may_start())
        blocked = self._heavy_without_memory
        if blocked is not None and request.lanes[Lane.HEAVY]:
            if self._has_memory_for(blocked.item):
                return blocked
            request.lanes = (True, False)
        ticket = self._queue.next(request)
        if ticket is None or ticket.lane is Lane.LIGHT or self._has_memory_for(ticket.item):
            return ticket
        self._heavy_without_memory = ticket  # smaller ones do not pass it: it might wait for ever
        request.lanes = (True, False)
        return self._queue.next(request)

    def _give_up(self, ticket: Ticket[Job], error: RequestError) -> None:
        """Answer a waiting job with an error."""
        self._queue.remove(ticket, self._clock())
        if ticket is self._heavy_without_memory:
            self._heavy_without_memory = None
        job = ticket.item
        self._tickets.pop(job)
        job.fail(error)
        job.close()

    def _ended(self, ticket: Ticket[Job]) -> None:
        """Charge a job that no worker has any more, whether it succeeded, failed or was killed."""
        now, job = self._clock(), ticket.item
        self._tickets.pop(job)
        seconds = (now - job.started) * job.threads
        self._queue.end(ticket, seconds + RESTART_SECONDS if job.worker_lost else seconds, now)
        if ticket.lane is Lane.HEAVY:
            self._heavy_running -= 1
            self._memory_left += job.memory * job.threads
            if self._queue.heavy:
                self.worker_idle()  # its own worker may have died and then reports nothing for a while

    def _wake_at(self, when: float) -> None:
        """Look at the queue again at a time, or earlier."""
        if when < self._wakes_at:
            self._wakes_at = when
            self._call_at(when, self._wake)

    def _wake(self) -> None:
        self._wakes_at = inf
        self.worker_idle()

    def _refuse_heavy(self, account: Hashable) -> Busy | None:
        waiting = self._queue.heavy
        own = self._queue.waiting_of(account, Lane.HEAVY)
        taken = waiting + self._heavy_running - self._heavy_lane
        if taken >= self._limit and (own or taken >= 2 * self._limit):
            return self._busy(waiting, Lane.HEAVY)
        if own >= self._per_client + self._heavy_lane:
            return self._busy_client(account, own, Lane.HEAVY)
        return None

    def _busy(self, waiting: int, lane: Lane) -> Busy:
        return Busy(
            f"{waiting} requests are waiting already; try again later",
            retry_after_ms=_retry_ms(
                waiting * self._queue.predict(None, _kind(lane)) / self._lane_size(lane)
            ),
            limit=Limit.QUEUE,
        )

    def _busy_client(self, account: Hashable, own: int, lane: Lane) -> Busy:
        share = self._lane_size(lane) / max(1, self._queue.accounts)
        return Busy(
            f"{own} requests from this address or identity are waiting already, as many as one may have "
            "(--queue-per-client); try again later",
            retry_after_ms=_retry_ms(own * self._queue.predict(account, _kind(lane)) / share),
            limit=Limit.QUEUE_PER_CLIENT,
        )

    def _lane_size(self, lane: Lane) -> int:
        return self._heavy_lane if lane is Lane.HEAVY else self._workers.size

    def _heavy_may_start(self) -> bool:
        if self._heavy_was_last and self._workers.size == 1 and self._queue.light:
            return False  # with a single worker the two lanes take turns
        return self._heavy_running < self._heavy_lane

    def _has_memory_for(self, job: Job) -> bool:
        return job.memory <= self._memory_left or not self._heavy_running

    def _threads_for(self, job: Job) -> int:
        return threads_for(
            job.memory,
            cores=self._cores,
            busy=self._workers.threads_busy,
            waiting=self.waiting - 1,
            memory_left=self._memory_left,
        )


def _kind(lane: Lane) -> str:
    """Return what the cost of the jobs of a lane is predicted from."""
    return _HEAVY if lane is Lane.HEAVY else _RESIZE


def _retry_ms(seconds: float) -> int:
    return max(_LEAST_RETRY_MS, int(seconds * 1000))


def threads_for(memory: int, *, cores: int, busy: int, waiting: int, memory_left: int) -> int:
    """Return the threads for a heavy job that takes ``memory`` bytes per thread.

    ``busy`` is how many of the ``cores`` the threads of running jobs use, ``waiting`` how many other jobs
    want one, and ``memory_left`` how many bytes heavy jobs may still take. A light job always has one thread:
    that gives the best throughput when all workers are busy, and a job of 20 ms ends before a second thread
    has woken up.
    """
    share = max(0, cores - busy) // (1 + waiting)
    return max(1, min(share, memory_left // memory, MAX_THREADS))
