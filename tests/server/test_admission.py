import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from vipsrv.errors import Busy, Cancelled, DeadlineExceeded
from vipsrv.server.admission import Admission
from vipsrv.storage import Spool
from vipsrv.workers.channel import Operation
from vipsrv.workers.job import Job, Outcome
from vipsrv.workers.pool import WorkerPool


class FakePool:
    """A pool with as many free workers as it is told."""

    size = 2

    def __init__(self) -> None:
        self.free = 0
        self.threads_busy = 0
        self.running: list[Job] = []
        self.cancelled: list[Job] = []

    @property
    def has_idle(self) -> bool:
        return self.free > 0

    def run(self, job: Job) -> bool:
        if not self.free:
            return False
        self.free -= 1
        self.running.append(job)
        return True

    def cancel(self, job: Job) -> None:
        self.cancelled.append(job)


@pytest.fixture
def pool() -> FakePool:
    return FakePool()


@pytest.fixture
def outcomes() -> list[Outcome]:
    return []


@pytest.fixture
def make_job(outcomes: list[Outcome]) -> Callable[..., Job]:
    def make(seconds: float = 60) -> Job:
        return Job(
            operation=Operation.INFO,
            options=b"",
            image=Spool(directory=Path(), memory=0, disk=0).open(0),
            deadline=time.monotonic() + seconds,
            on_outcome=outcomes.append,
        )

    return make


def admission_of(pool: FakePool, limit: int) -> Admission:
    return Admission(cast("WorkerPool", pool), limit=limit, memory=1000, cores=4)


def test_a_free_worker_gets_the_job_at_once(pool: FakePool, make_job: Callable[..., Job]) -> None:
    pool.free = 1
    admission = admission_of(pool, 0)
    job = make_job()
    admission.submit(job)
    assert pool.running == [job]
    assert admission.waiting == 0


def test_jobs_wait_in_the_order_of_their_arrival(pool: FakePool, make_job: Callable[..., Job]) -> None:
    admission = admission_of(pool, 3)
    jobs = [make_job() for _ in range(3)]
    for job in jobs:
        admission.submit(job)
    for number in range(3):
        pool.free = 1
        admission.worker_idle()
        assert pool.running == jobs[: number + 1]


def test_beyond_the_limit_it_is_busy_for_as_long_as_the_queue_will_take(
    pool: FakePool, make_job: Callable[..., Job]
) -> None:
    admission = admission_of(pool, 4)
    for _ in range(400):
        admission.job_took(3.0)
    for _ in range(4):
        admission.submit(make_job())
    with pytest.raises(Busy) as refused:
        admission.submit(make_job())
    # Four jobs of three seconds on two workers.
    assert refused.value.retry_after_ms == pytest.approx(6000, rel=0.01)
    with pytest.raises(Busy):
        admission.check()


def test_a_waiting_job_is_cancelled_without_a_worker(
    pool: FakePool, make_job: Callable[..., Job], outcomes: list[Outcome]
) -> None:
    admission = admission_of(pool, 4)
    job = make_job()
    admission.submit(job)
    admission.cancel(job)
    assert isinstance(outcomes[0].error, Cancelled)
    assert (admission.waiting, pool.cancelled) == (0, [])


def test_a_running_job_is_cancelled_by_the_pool(pool: FakePool, make_job: Callable[..., Job]) -> None:
    pool.free = 1
    admission = admission_of(pool, 4)
    job = make_job()
    admission.submit(job)
    admission.cancel(job)
    assert pool.cancelled == [job]


def test_a_job_that_waits_too_long_is_given_up(
    pool: FakePool, make_job: Callable[..., Job], outcomes: list[Outcome]
) -> None:
    admission = admission_of(pool, 4)
    admission.submit(make_job(seconds=10))
    admission.submit(make_job(seconds=1000))
    admission.watch(time.monotonic())
    assert admission.waiting == 2
    admission.watch(time.monotonic() + 100)
    assert admission.waiting == 1
    assert [type(outcome.error) for outcome in outcomes] == [DeadlineExceeded]


def heavy(make_job: Callable[..., Job], memory: int) -> Job:
    job = make_job()
    job.memory = memory
    return job


def start_all(pool: FakePool, admission: Admission, free: int) -> list[Job]:
    """What is started when so many workers become free."""
    before = len(pool.running)
    pool.free = free
    admission.worker_idle()
    return pool.running[before:]


def test_heavy_jobs_have_half_of_the_workers(pool: FakePool, make_job: Callable[..., Job]) -> None:
    pool.size = 4
    admission = admission_of(pool, 10)
    giants = [heavy(make_job, 1) for _ in range(4)]
    small = make_job()
    for giant in giants:
        admission.heavy(giant)
    admission.submit(small)
    assert start_all(pool, admission, 4) == [giants[0], giants[1], small]
    giants[0].close()
    assert start_all(pool, admission, 1) == [giants[2]]


def test_a_heavy_job_has_the_idle_cores_and_memory_for_each(
    pool: FakePool, make_job: Callable[..., Job]
) -> None:
    pool.size = 8
    admission = admission_of(pool, 10)
    lone, next_one, last = (heavy(make_job, 300) for _ in range(3))
    admission.heavy(lone)
    assert start_all(pool, admission, 1) == [lone]
    assert lone.threads == 3  # of 4 cores, for the memory of the fourth is not there
    admission.heavy(next_one)
    assert start_all(pool, admission, 1) == []
    lone.close()
    pool.threads_busy = 3
    assert start_all(pool, admission, 1) == [next_one]
    assert next_one.threads == 1
    pool.threads_busy = 1
    admission.heavy(last)
    assert start_all(pool, admission, 1) == [last]
    assert last.threads == 2


def test_a_light_job_has_one_thread(pool: FakePool, make_job: Callable[..., Job]) -> None:
    pool.free = 1
    admission = admission_of(pool, 10)
    admission.submit(make_job())
    assert pool.running[0].threads == 1


def test_heavy_jobs_share_a_budget_of_memory(pool: FakePool, make_job: Callable[..., Job]) -> None:
    pool.size = 8
    admission = admission_of(pool, 10)
    giants = [heavy(make_job, 400) for _ in range(3)]
    for giant in giants:
        admission.heavy(giant)
    assert start_all(pool, admission, 8) == giants[:2]
    giants[1].close()
    assert start_all(pool, admission, 8) == giants[2:]


def test_one_that_needs_more_than_the_budget_runs_alone(pool: FakePool, make_job: Callable[..., Job]) -> None:
    pool.size = 8
    admission = admission_of(pool, 10)
    giants = [heavy(make_job, memory) for memory in (1, 5000, 1)]
    for giant in giants:
        admission.heavy(giant)
    assert start_all(pool, admission, 8) == giants[:1]
    giants[0].close()
    assert start_all(pool, admission, 8) == giants[1:2]
    giants[1].close()
    assert start_all(pool, admission, 8) == giants[2:]


def test_heavy_jobs_that_wait_leave_the_queue_to_the_light_ones(
    pool: FakePool, make_job: Callable[..., Job], outcomes: list[Outcome]
) -> None:
    admission = admission_of(pool, 2)  # the lane of two workers is one of them
    for _ in range(3):
        admission.heavy(make_job())
    assert outcomes == []
    admission.heavy(make_job())
    assert [type(outcome.error) for outcome in outcomes] == [Busy]
    for _ in range(2):
        admission.submit(make_job())
    with pytest.raises(Busy):
        admission.submit(make_job())


def test_a_single_worker_takes_turns(pool: FakePool, make_job: Callable[..., Job]) -> None:
    pool.size = 1
    admission = admission_of(pool, 10)
    giants = [heavy(make_job, 1) for _ in range(2)]
    small = [make_job() for _ in range(2)]
    for giant in giants:
        admission.heavy(giant)
    for job in small:
        admission.submit(job)
    order = []
    for _ in range(4):
        (job,) = start_all(pool, admission, 1)
        job.close()
        order.append(job)
    assert order == [giants[0], small[0], giants[1], small[1]]


def test_a_heavy_job_that_waits_is_cancelled_and_given_up_like_any_other(
    pool: FakePool, make_job: Callable[..., Job], outcomes: list[Outcome]
) -> None:
    admission = admission_of(pool, 10)
    giants = [heavy(make_job, 1) for _ in range(2)]
    for giant in giants:
        admission.heavy(giant)
    admission.cancel(giants[0])
    admission.watch(time.monotonic() + 100)
    assert [type(outcome.error) for outcome in outcomes] == [Cancelled, DeadlineExceeded]
    assert admission.waiting == 0


def test_a_job_behind_one_that_is_given_up_is_looked_at_again(
    pool: FakePool, make_job: Callable[..., Job]
) -> None:
    pool.size = 4  # so that two heavy ones may run
    admission = admission_of(pool, 4)
    running, too_much, enough = (heavy(make_job, memory) for memory in (10, 2000, 100))
    too_much.deadline -= 50
    for job in (running, too_much, enough):
        admission.heavy(job)
    assert start_all(pool, admission, free=2) == [running]
    admission.watch(too_much.deadline + 1)
    assert pool.running == [running, enough]
