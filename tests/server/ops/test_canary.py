"""The canary: through a played queue, through the fair queue under load, and through real workers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.server.fakes import FakeClock, FakeWorkers, content
from tests.support.slots import fill_at_once
from tests.workers.pool_harness import CONFIG, PATIENCE, until
from vipsrv.errors import Busy, CorruptImage, DeadlineExceeded, TooLarge, UnsupportedFormat, WorkerDied
from vipsrv.options import ImageInfo, OutputInfo
from vipsrv.server.accounts import Account, Flow
from vipsrv.server.admission import Admission
from vipsrv.server.ops.canary import LIMIT_SECONDS, Canary, CanaryState
from vipsrv.storage import Spool
from vipsrv.worker_config import WorkerConfig
from vipsrv.workers.channel import Operation
from vipsrv.workers.job import Job, Outcome
from vipsrv.workers.pool import WorkerPool

DEADLINE = 60.0


class Queue:
    """Takes canaries; the test answers them."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.cancelled: list[Job] = []

    def submit_canary(self, job: Job, flow: Flow) -> None:
        assert flow.account.key
        self.jobs.append(job)

    def cancel(self, job: Job) -> None:
        self.cancelled.append(job)

    async def next_job(self, number: int = 1) -> Job:
        await until(lambda: len(self.jobs) >= number)
        return self.jobs[-1]


class Played:
    """A canary whose queue and clock the test plays."""

    def __init__(self, spool: Spool) -> None:
        self.queue = Queue()
        self.clock = FakeClock()
        self.spool = spool
        self.canary = Canary(
            self.queue,
            formats=lambda: (("png", "jpeg"), ("png", "jpeg")),
            deadline=lambda: DEADLINE,
            clock=self.clock,
        )

    def good(self, *, width: int = 8, size: int = 3, stored: int = 3) -> Outcome:
        """An outcome with a result, right by default."""
        source = ImageInfo(
            format="png", width=16, height=16, pages=1, has_alpha=False, orientation=1, size=99
        )
        output = OutputInfo(width=width, height=8, format="png", quality=0, size=size)
        result = fill_at_once(self.spool.open(stored), bytes(stored))
        return Outcome(source=source, outputs=(output,), result=result, worker=7)

    async def report_after(self, *outcomes: Outcome) -> CanaryState:
        """The state after a canary got these outcomes, one for each try."""
        sent = len(self.queue.jobs)
        asked = asyncio.create_task(self.canary.report())
        for number, outcome in enumerate(outcomes, 1):
            (await self.queue.next_job(sent + number)).answer(outcome)
        report = await asked
        assert report.passes is (report.state is CanaryState.PASSING)
        return report.state


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(directory=tmp_path, memory=1 << 20, disk=0)


@pytest.fixture
def played(spool: Spool) -> Played:
    return Played(spool)


async def test_it_passes_when_a_right_result_comes_back(played: Played, spool: Spool) -> None:
    before = spool.memory_left
    assert played.canary.latest().state is CanaryState.UNKNOWN
    assert await played.report_after(played.good()) is CanaryState.PASSING
    assert spool.memory_left == before, "its result is released"


async def test_all_who_ask_wait_for_the_same_one(played: Played) -> None:
    asked = [asyncio.create_task(played.canary.report()) for _ in range(3)]
    (await played.queue.next_job()).answer(played.good())
    assert all(report.passes for report in await asyncio.gather(*asked))
    assert len(played.queue.jobs) == 1


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(error=CorruptImage("no image"), worker=7),
        Outcome(error=DeadlineExceeded("no worker was free before the deadline")),
        Outcome(error=Busy("the queue is full")),  # no worker had it
        Outcome(source=None, worker=7),
    ],
    ids=["the worker cannot read it", "deadline", "refused by the queue", "nothing came back"],
)
async def test_it_fails_when_an_error_comes_back(played: Played, outcome: Outcome) -> None:
    assert await played.report_after(outcome) is CanaryState.FAILING
    assert "failed" in played.canary.latest().detail
    assert await played.report_after(played.good()) is CanaryState.PASSING


@pytest.mark.parametrize("fault", [{"width": 9}, {"size": 4}, {"stored": 0, "size": 0}])
async def test_it_fails_when_a_wrong_result_comes_back(played: Played, fault: dict[str, int]) -> None:
    assert await played.report_after(played.good(**fault)) is CanaryState.FAILING


@pytest.mark.parametrize(
    "error", [UnsupportedFormat("no"), TooLarge("max_pixels"), Busy("the spool is full")], ids=str
)
async def test_it_passes_when_the_settings_refuse_its_image(
    played: Played, error: UnsupportedFormat | TooLarge | Busy
) -> None:
    """A worker has read it and has answered."""
    assert await played.report_after(Outcome(error=error, worker=7)) is CanaryState.PASSING


async def test_a_worker_may_end_with_it_once(played: Played) -> None:
    died = Outcome(error=WorkerDied("killed"), worker=7)
    assert await played.report_after(died, played.good()) is CanaryState.PASSING
    assert await played.report_after(died, died) is CanaryState.FAILING


async def test_one_that_does_not_come_back_is_late(played: Played) -> None:
    await played.report_after(played.good())
    report = await played.canary.report(patience=0)
    assert report.passes, "it is not late yet"

    played.clock.now += LIMIT_SECONDS
    report = await played.canary.report()
    assert report.state is CanaryState.LATE
    assert report.seconds == pytest.approx(LIMIT_SECONDS)
    assert "no worker has become free" in report.detail

    job = played.queue.jobs[-1]
    job.worker = 4711
    assert "worker 4711" in played.canary.latest().detail
    assert len(played.queue.jobs) == 2, "no second one is sent after it"

    job.answer(played.good())
    assert played.canary.latest().state is CanaryState.PASSING


async def test_a_timer_that_is_early_makes_no_difference(played: Played) -> None:
    await played.canary.report(patience=0)
    played.clock.now += LIMIT_SECONDS - 0.01  # and stands still meanwhile
    assert (await played.canary.report()).state is CanaryState.LATE


async def test_a_worker_is_not_stopped_earlier_because_of_it(played: Played) -> None:
    await played.canary.report(patience=0)
    assert played.queue.jobs[0].deadline == pytest.approx(played.clock.now + DEADLINE)


async def test_close_stops_the_one_that_is_on_its_way(played: Played, spool: Spool) -> None:
    asked = asyncio.create_task(played.canary.report())
    job = await played.queue.next_job()
    played.canary.close()
    assert not (await asked).passes
    assert played.queue.cancelled == [job]
    before = spool.memory_left
    job.answer(played.good())
    assert spool.memory_left == before


# Behind the fair queue.


def test_it_goes_before_all_that_wait_and_no_limit_refuses_it(spool: Spool) -> None:
    workers = FakeWorkers()
    admission = Admission(
        workers,
        limit=10,
        per_client=10,
        memory=1000,
        cores=4,
        clock=workers.clock,
        call_at=workers.clock.call_at,
    )

    def client_job() -> Job:
        return Job(
            operation=Operation.RESIZE,
            options=b"",
            image=spool.open(0),
            deadline=workers.clock() + 60,
            on_outcome=lambda _: None,
        )

    for number in range(20):  # the queue is full, also for clients that have none waiting
        admission.submit(client_job(), Flow(Account(f"192.0.2.{number}")))
    with pytest.raises(Busy):
        admission.submit(client_job(), Flow(Account("192.0.2.99")))

    flow = Flow(Account("the canary"))
    for _ in range(3):
        canary = client_job()
        admission.submit_canary(canary, flow)
        workers.free = 1
        admission.worker_idle()
        assert workers.jobs[-1] is canary
        workers.clock.now += 3  # of which it owes most
        canary.close()
        workers.free = 1
        admission.worker_idle()
        assert workers.jobs[-1] is not canary, "the others go on"


# With real workers.


class Served:
    """A pool with its admission and a canary."""

    def __init__(self, spool: Spool, config: WorkerConfig) -> None:
        self.spool = spool
        self.pool = WorkerPool(spool, config, size=1, on_idle=self._worker_idle, on_heavy=lambda _: None)
        self.admission = Admission(self.pool, limit=0, per_client=1, memory=1 << 30, cores=1)
        self.canary = Canary(
            self.admission,
            formats=lambda: (self.pool.formats.readers, self.pool.formats.writers),
            deadline=lambda: DEADLINE,
        )

    def _worker_idle(self) -> None:
        self.admission.worker_idle()


@asynccontextmanager
async def served(
    folder: Path, config: WorkerConfig = CONFIG, *, memory: int = 1 << 20
) -> AsyncIterator[Served]:
    one = Served(Spool(directory=folder, memory=memory, disk=0), config)
    try:
        await asyncio.wait_for(one.pool.start(), PATIENCE)
        yield one
    finally:
        one.canary.close()
        await asyncio.wait_for(one.pool.stop(), PATIENCE)
        one.spool.close()


@pytest.mark.parametrize("formats", [None, ("png",), ("jpeg",), ("tiff",), ("gif", "webp")], ids=str)
async def test_a_real_worker_passes_with_any_formats(tmp_path: Path, formats: tuple[str, ...] | None) -> None:
    config = WorkerConfig(formats=formats)
    async with served(tmp_path, config) as one:
        report = await one.canary.report()
        assert report.state is CanaryState.PASSING, report.detail


async def test_a_real_worker_passes_while_the_spool_is_full(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        held = []
        while one.spool.memory_left >= 1 << 16:
            held.append(fill_at_once(one.spool.open(1 << 16), bytes(1 << 16)))
        assert content(held[0])
        report = await one.canary.report()
        assert report.state is CanaryState.PASSING, report.detail
        for slot in held:
            slot.close()


async def test_a_worker_that_is_killed_with_it_is_replaced_and_passes(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        (worker,) = one.pool.workers
        asked = asyncio.create_task(one.canary.report())
        await asyncio.sleep(0)
        assert worker.job is not None
        worker.kill("the test kills it")
        report = await asked
        assert report.state is CanaryState.PASSING, report.detail
        assert worker not in one.pool.workers
