import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server.fakes import FakeWorkers
from vipsrv.errors import Busy, Cancelled, DeadlineExceeded, Limit
from vipsrv.server.accounts import Account, Flow
from vipsrv.server.admission import RESTART_SECONDS, Admission, call_at, threads_for
from vipsrv.storage import Spool
from vipsrv.workers.channel import MAX_THREADS, Operation
from vipsrv.workers.job import Job, Outcome

FLOW = Flow(Account("192.0.2.1"))
OTHER = Flow(Account("192.0.2.2"))


@pytest.fixture
def workers() -> FakeWorkers:
    return FakeWorkers()


@pytest.fixture
def outcomes() -> list[Outcome]:
    return []


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    one = Spool(directory=tmp_path, memory=1 << 20, disk=0)
    yield one
    one.close()


@pytest.fixture
def make_job(outcomes: list[Outcome], spool: Spool) -> Callable[..., Job]:
    def make(seconds: float = 60, operation: Operation = Operation.INFO) -> Job:
        return Job(
            operation=operation,
            options=b"",
            image=spool.open(0),
            deadline=time.monotonic() + seconds,
            on_outcome=outcomes.append,
        )

    return make


def admission_of(workers: FakeWorkers, limit: int) -> Admission:
    return Admission(
        workers,
        limit=limit,
        per_client=limit,
        memory=1000,
        cores=4,
        clock=workers.clock,
        call_at=workers.clock.call_at,
    )


def test_a_free_worker_gets_the_job_at_once(workers: FakeWorkers, make_job: Callable[..., Job]) -> None:
    workers.free = 1
    admission = admission_of(workers, 0)
    job = make_job()
    admission.submit(job, FLOW)
    assert workers.jobs == [job]
    assert admission.waiting == 0


def test_jobs_wait_in_the_order_of_their_arrival(workers: FakeWorkers, make_job: Callable[..., Job]) -> None:
    admission = admission_of(workers, 3)
    jobs = [make_job() for _ in range(3)]
    for job in jobs:
        admission.submit(job, FLOW)
    for number in range(3):
        workers.free = 1
        admission.worker_idle()
        assert workers.jobs == jobs[: number + 1]


def take(workers: FakeWorkers, admission: Admission, job: Job, *, seconds: float, flow: Flow = FLOW) -> None:
    """Run a job that takes so many seconds."""
    workers.free = 1
    admission.submit(job, flow)
    workers.clock.now += seconds
    workers.jobs.remove(job)
    job.close()


def test_a_full_queue_is_busy_for_as_long_as_its_jobs_will_take(
    workers: FakeWorkers, make_job: Callable[..., Job]
) -> None:
    admission = admission_of(workers, 4)
    for _ in range(40):
        take(workers, admission, make_job(operation=Operation.RESIZE), seconds=3.0)
    for _ in range(4):
        admission.submit(make_job(), FLOW)
    with pytest.raises(Busy) as refused:
        admission.submit(make_job(), FLOW)
    assert refused.value.limit is Limit.QUEUE_PER_CLIENT
    # Four jobs of three seconds on two workers.
    assert refused.value.retry_after_ms == pytest.approx(6000, rel=0.01)
    with pytest.raises(Busy):
        admission.check(FLOW)


def test_a_waiting_job_is_cancelled_without_a_worker(
    workers: FakeWorkers, make_job: Callable[..., Job], outcomes: list[Outcome]
) -> None:
    admission = admission_of(workers, 4)
    job = make_job()
    admission.submit(job, FLOW)
    admission.cancel(job)
    assert isinstance(outcomes[0].error, Cancelled)
    assert (admission.waiting, workers.cancelled) == (0, [])


def test_a_running_job_is_cancelled_by_the_pool(workers: FakeWorkers, make_job: Callable[..., Job]) -> None:
    workers.free = 1
    admission = admission_of(workers, 4)
    job = make_job()
    admission.submit(job, FLOW)
    admission.cancel(job)
    assert workers.cancelled == [job]


def test_a_job_that_waits_beyond_its_deadline_is_given_up(
    workers: FakeWorkers, make_job: Callable[..., Job], outcomes: list[Outcome]
) -> None:
    admission = admission_of(workers, 4)
    admission.submit(make_job(seconds=10), FLOW)
    admission.submit(make_job(seconds=1000), FLOW)
    admission.watch(time.monotonic())
    assert admission.waiting == 2
    admission.watch(time.monotonic() + 100)
    assert admission.waiting == 1
    assert [type(outcome.error) for outcome in outcomes] == [DeadlineExceeded]


def heavy(make_job: Callable[..., Job], memory: int) -> Job:
    job = make_job()
    job.memory = memory
    return job


def give_back(workers: FakeWorkers, admission: Admission, *jobs: Job, flow: Flow = FLOW) -> None:
    """Submit jobs to workers that find them to be heavy."""
    needs = [job.memory or 1 for job in jobs]
    workers.free = len(jobs)
    for job in jobs:
        job.memory = 0
        admission.submit(job, flow)
    assert workers.jobs[-len(jobs) :] == list(jobs)
    del workers.jobs[-len(jobs) :]
    for job, memory in zip(jobs, needs, strict=True):
        job.memory = memory
        admission.requeue_as_heavy(job)


def start_all(workers: FakeWorkers, admission: Admission, free: int) -> list[Job]:
    """What is started when so many workers become free."""
    before = len(workers.jobs)
    workers.free = free
    admission.worker_idle()
    return workers.jobs[before:]


def test_heavy_jobs_get_half_of_the_workers(workers: FakeWorkers, make_job: Callable[..., Job]) -> None:
    workers.size = 4
    admission = admission_of(workers, 10)
    giants = [heavy(make_job, 1) for _ in range(4)]
    small = make_job()
    give_back(workers, admission, *giants)
    admission.submit(small, FLOW)
    assert start_all(workers, admission, 4) == [giants[0], giants[1], small]
    use = admission.use
    assert (use.light_waiting, use.heavy_waiting, use.light_running, use.heavy_running) == (0, 2, 1, 2)
    assert (use.waiting_limit, use.memory, use.memory_limit, use.heavy_jobs) == (10, 2, 1000, 4)
    giants[0].close()
    assert workers.jobs[3:] == [giants[2]]  # on the worker that is still idle


def test_a_heavy_job_gets_the_idle_cores_and_memory_for_each(
    workers: FakeWorkers, make_job: Callable[..., Job]
) -> None:
    workers.size = 8
    admission = admission_of(workers, 10)
    lone, next_one, last = (heavy(make_job, 300) for _ in range(3))
    give_back(workers, admission, lone)
    assert start_all(workers, admission, 1) == [lone]
    assert lone.threads == 3  # of 4 cores, for the memory of the fourth is not there
    give_back(workers, admission, next_one)
    assert start_all(workers, admission, 1) == []
    workers.free = 0
    lone.close()
    workers.threads_busy = 3
    assert start_all(workers, admission, 1) == [next_one]
    assert next_one.threads == 1
    workers.threads_busy = 1
    give_back(workers, admission, last)
    assert start_all(workers, admission, 1) == [last]
    assert last.threads == 2


def test_a_light_job_has_one_thread(workers: FakeWorkers, make_job: Callable[..., Job]) -> None:
    workers.free = 1
    admission = admission_of(workers, 10)
    admission.submit(make_job(), FLOW)
    assert workers.jobs[0].threads == 1


def test_heavy_jobs_share_a_budget_of_memory(workers: FakeWorkers, make_job: Callable[..., Job]) -> None:
    workers.size = 8
    admission = admission_of(workers, 10)
    giants = [heavy(make_job, 400) for _ in range(3)]
    give_back(workers, admission, *giants)
    assert start_all(workers, admission, 8) == giants[:2]
    giants[1].close()
    assert workers.jobs == giants


def test_more_memory_starts_a_heavy_job_that_waits_for_it(
    workers: FakeWorkers, make_job: Callable[..., Job]
) -> None:
    workers.size = 8
    admission = admission_of(workers, 10)
    giants = [heavy(make_job, 400) for _ in range(3)]
    give_back(workers, admission, *giants)
    assert start_all(workers, admission, 8) == giants[:2]
    admission.change_limits(limit=10, per_client=10, memory=1200)
    assert workers.jobs == giants


def test_less_memory_than_runs_already_starts_nothing_until_it_is_free(
    workers: FakeWorkers, make_job: Callable[..., Job]
) -> None:
    workers.size = 8
    admission = admission_of(workers, 10)
    giants = [heavy(make_job, 400) for _ in range(4)]
    give_back(workers, admission, *giants)
    assert start_all(workers, admission, 8) == giants[:2]
    admission.change_limits(limit=10, per_client=10, memory=500)
    giants[0].close()
    assert workers.jobs == giants[:2]  # the other one has 400 of the 500 bytes
    giants[1].close()
    assert workers.jobs == giants[:3]


def test_a_lower_limit_drops_no_job_that_waits(workers: FakeWorkers, make_job: Callable[..., Job]) -> None:
    admission = admission_of(workers, 3)
    jobs = [make_job() for _ in range(3)]
    for job in jobs:
        admission.submit(job, FLOW)
    admission.change_limits(limit=1, per_client=1, memory=1000)
    with pytest.raises(Busy):
        admission.submit(make_job(), FLOW)
    assert start_all(workers, admission, 3) == jobs
    workers.free = 0
    admission.submit(make_job(), FLOW)
    with pytest.raises(Busy, match="--queue-per-client"):
        admission.submit(make_job(), FLOW)


def test_a_job_above_the_budget_runs_alone(workers: FakeWorkers, make_job: Callable[..., Job]) -> None:
    workers.size = 8
    admission = admission_of(workers, 10)
    giants = [heavy(make_job, memory) for memory in (1, 5000, 1)]
    give_back(workers, admission, *giants)
    assert start_all(workers, admission, 8) == giants[:1]
    giants[0].close()
    assert workers.jobs == giants[:2]
    giants[1].close()
    assert workers.jobs == giants


def test_waiting_heavy_jobs_leave_the_queue_to_the_light_ones(
    workers: FakeWorkers, make_job: Callable[..., Job], outcomes: list[Outcome]
) -> None:
    admission = admission_of(workers, 2)  # the lane of two workers is one of them
    give_back(workers, admission, *(make_job() for _ in range(4)))
    assert [type(outcome.error) for outcome in outcomes] == [Busy]
    for _ in range(2):
        admission.submit(make_job(), FLOW)
    with pytest.raises(Busy):
        admission.submit(make_job(), FLOW)


def test_a_single_worker_alternates_the_queues(workers: FakeWorkers, make_job: Callable[..., Job]) -> None:
    workers.size = 1
    admission = admission_of(workers, 10)
    giants = [heavy(make_job, 1) for _ in range(2)]
    small = [make_job() for _ in range(2)]
    give_back(workers, admission, *giants)
    for job in small:
        admission.submit(job, FLOW)
    order = []
    for _ in range(4):
        (job,) = start_all(workers, admission, 1)
        job.close()
        order.append(job)
    assert order == [giants[0], small[0], giants[1], small[1]]


def test_a_waiting_heavy_job_is_cancelled_and_given_up_like_any_other(
    workers: FakeWorkers, make_job: Callable[..., Job], outcomes: list[Outcome]
) -> None:
    admission = admission_of(workers, 10)
    giants = [heavy(make_job, 1) for _ in range(2)]
    give_back(workers, admission, *giants)
    admission.cancel(giants[0])
    admission.watch(time.monotonic() + 100)
    assert [type(outcome.error) for outcome in outcomes] == [Cancelled, DeadlineExceeded]
    assert admission.waiting == 0


def test_a_job_behind_one_that_is_given_up_is_considered_again(
    workers: FakeWorkers, make_job: Callable[..., Job]
) -> None:
    workers.size = 4  # so that two heavy ones may run
    admission = admission_of(workers, 4)
    running, too_much, enough = (heavy(make_job, memory) for memory in (10, 2000, 100))
    too_much.deadline -= 50
    give_back(workers, admission, running, too_much, enough)
    assert start_all(workers, admission, free=2) == [running]
    admission.watch(too_much.deadline + 1)
    assert workers.jobs == [running, enough]


@pytest.mark.parametrize(
    ("busy", "waiting", "threads"),
    [(0, 0, 4), (1, 0, 3), (3, 0, 1), (4, 0, 1), (9, 0, 1), (0, 1, 2), (1, 1, 1), (0, 3, 1), (0, 100, 1)],
)
def test_a_heavy_job_gets_its_share_of_the_idle_cores(busy: int, waiting: int, threads: int) -> None:
    assert threads_for(100, cores=4, busy=busy, waiting=waiting, memory_left=10_000) == threads


@pytest.mark.parametrize(("left", "threads"), [(1000, 4), (400, 4), (399, 3), (100, 1), (99, 1), (-5, 1)])
def test_each_thread_needs_its_memory(left: int, threads: int) -> None:
    assert threads_for(100, cores=4, busy=0, waiting=0, memory_left=left) == threads


def test_there_are_never_more_threads_than_the_channel_can_carry() -> None:
    assert threads_for(1, cores=1000, busy=0, waiting=0, memory_left=10**9) == MAX_THREADS


def test_clients_take_turns(workers: FakeWorkers, make_job: Callable[..., Job]) -> None:
    admission = admission_of(workers, 10)
    many, one = [make_job() for _ in range(4)], make_job()
    for job in many:
        admission.submit(job, FLOW)
    admission.submit(one, OTHER)
    assert start_all(workers, admission, 1) == many[:1]
    workers.clock.now += 1.0
    many[0].close()
    assert start_all(workers, admission, 1) == [one]


def test_an_address_has_a_limit_of_its_own(workers: FakeWorkers, make_job: Callable[..., Job]) -> None:
    admission = Admission(workers, limit=5, per_client=2, memory=1000, cores=4, clock=workers.clock)
    for _ in range(2):
        admission.submit(make_job(), FLOW)
    with pytest.raises(Busy, match="--queue-per-client") as refused:
        admission.check(FLOW)
    assert (refused.value.retry_after_ms or 0) >= 100
    assert refused.value.limit is Limit.QUEUE_PER_CLIENT
    admission.submit(make_job(), OTHER)
    assert admission.use.light_waiting == 3
    assert admission.waiting == 3


def test_the_prediction_for_a_heavy_job_is_charged_when_it_starts(
    workers: FakeWorkers, make_job: Callable[..., Job]
) -> None:
    workers.size = 4
    admission = admission_of(workers, 10)
    giant = heavy(make_job, 1)
    giant.predicted_seconds = 5.0
    give_back(workers, admission, giant)
    assert start_all(workers, admission, 1) == [giant]
    own, others = make_job(), [make_job() for _ in range(3)]
    admission.submit(own, FLOW)
    for job in others:
        admission.submit(job, OTHER)
    for job in others:
        assert start_all(workers, admission, 1) == [job]
        workers.clock.now += 0.5
        job.close()


def test_a_full_queue_does_not_shut_out_a_client_with_nothing_in_it(
    workers: FakeWorkers, make_job: Callable[..., Job]
) -> None:
    admission = admission_of(workers, 2)
    for _ in range(2):
        admission.submit(make_job(), FLOW)
    admission.submit(make_job(), OTHER)
    with pytest.raises(Busy):
        admission.check(OTHER)
    admission.submit(make_job(), Flow(Account("192.0.2.3")))
    with pytest.raises(Busy) as refused:  # twice the limit is for nobody
        admission.check(Flow(Account("192.0.2.4")))
    assert refused.value.limit is Limit.QUEUE


def test_a_full_heavy_lane_does_not_shut_out_a_client_with_nothing_in_it(
    workers: FakeWorkers, make_job: Callable[..., Job], outcomes: list[Outcome]
) -> None:
    admission = admission_of(workers, 2)  # the lane of two workers is one of them
    jobs = [heavy(make_job, 1) for _ in range(5)]
    workers.free = 5
    for job, flow in zip(jobs, [FLOW] * 3 + [OTHER] * 2, strict=True):
        admission.submit(job, flow)
    for job in jobs[:4]:
        admission.requeue_as_heavy(job)
    assert outcomes == []
    admission.requeue_as_heavy(jobs[4])
    assert [type(outcome.error) for outcome in outcomes] == [Busy]


def test_a_job_whose_worker_is_lost_is_charged_for_its_replacement(
    workers: FakeWorkers, make_job: Callable[..., Job]
) -> None:
    admission = admission_of(workers, 40)
    workers.free = 1
    fatal = make_job()
    admission.submit(fatal, FLOW)
    fatal.worker_lost = True
    fatal.close()
    own, others = [make_job() for _ in range(3)], [make_job() for _ in range(5)]
    for job in own:
        admission.submit(job, FLOW)
    for job in others:
        admission.submit(job, OTHER)
    order = []
    for _ in range(5):
        (job,) = start_all(workers, admission, 1)
        workers.clock.now += RESTART_SECONDS / 10
        job.close()
        order.append(job)
    assert order == others


def test_a_job_that_was_started_meanwhile_is_not_given_up(
    workers: FakeWorkers, make_job: Callable[..., Job], outcomes: list[Outcome]
) -> None:
    admission = admission_of(workers, 4)
    first, second = make_job(), make_job()

    def start_next(outcome: Outcome) -> None:
        outcomes.append(outcome)
        workers.free = 1
        admission.worker_idle()

    first.on_outcome = start_next
    first.deadline = second.deadline = time.monotonic()
    for job in (first, second):
        admission.submit(job, FLOW)
    admission.watch(time.monotonic() + 1)
    assert workers.jobs == [second]
    assert len(outcomes) == 1


def test_a_closed_connection_is_forgotten(workers: FakeWorkers, make_job: Callable[..., Job]) -> None:
    admission = admission_of(workers, 4)
    closed, other = Flow(FLOW.account), Flow(FLOW.account)
    take(workers, admission, make_job(), seconds=0.5, flow=closed)
    admission.flow_closed(closed)
    first, second = make_job(), make_job()
    admission.submit(first, closed)  # as if it were new: the debt is gone
    admission.submit(second, other)
    assert start_all(workers, admission, 1) == [first]


def test_a_failed_and_a_cancelled_job_are_charged(
    workers: FakeWorkers, make_job: Callable[..., Job], outcomes: list[Outcome]
) -> None:
    admission = admission_of(workers, 40)
    workers.free = 1
    dear = make_job()
    admission.submit(dear, FLOW)
    workers.clock.now += 5.0
    admission.cancel(dear)
    own, others = [make_job() for _ in range(3)], [make_job() for _ in range(20)]
    for job in own:
        admission.submit(job, FLOW)
    for job in others:
        admission.submit(job, OTHER)
    order = []
    for _ in range(20):
        (job,) = start_all(workers, admission, 1)
        workers.clock.now += 0.1
        job.close()
        order.append(job)
    assert order == others
    assert [type(outcome.error) for outcome in outcomes] == [Cancelled]


def test_a_timer_is_never_early(monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []

    class Loop:
        def call_later(self, delay: float, _: Callable[[], None]) -> None:
            delays.append(delay)

    monkeypatch.setattr(asyncio, "get_running_loop", Loop)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    call_at(99, lambda: None)
    call_at(105, lambda: None)
    assert delays == [pytest.approx(0.001), pytest.approx(5.001)]
