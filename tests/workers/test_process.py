"""The states of a worker process; its life with real processes is tested with the pool."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.workers.rogue import rogue
from vipsrv.storage import Spool
from vipsrv.worker_config import WorkerConfig
from vipsrv.workers.channel import Operation
from vipsrv.workers.job import Job, Outcome
from vipsrv.workers.process import TRANSITIONS, WorkerProcess, WorkerState

PATIENCE = 60


def test_every_state_can_end_and_the_end_is_final() -> None:
    assert set(TRANSITIONS) == set(WorkerState)
    assert TRANSITIONS[WorkerState.ENDED] == frozenset()
    assert all(WorkerState.ENDED in after for state, after in TRANSITIONS.items() if after)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(directory=tmp_path, memory=1 << 20, disk=0)


def state_of(worker: WorkerProcess) -> WorkerState:
    return worker.state  # a call, so that mypy does not take the state to stay as it was


async def test_a_worker_is_idle_after_its_handshake_and_after_each_job(spool: Spool) -> None:
    idle: asyncio.Queue[WorkerProcess] = asyncio.Queue()
    ended: list[WorkerProcess] = []
    worker = WorkerProcess(
        asyncio.get_running_loop(),
        spool,
        WorkerConfig(),
        on_idle=idle.put_nowait,
        on_heavy=lambda _job: None,
        on_end=ended.append,
        command=rogue("ready(); reply(job(), 3); reply(job(), 3); sleep()"),
    )
    assert state_of(worker) is WorkerState.STARTING
    outcomes: list[Outcome] = []
    for number in range(3):
        assert await asyncio.wait_for(idle.get(), PATIENCE) is worker
        assert state_of(worker) is WorkerState.IDLE
        assert worker.jobs_done == len(outcomes) == number
        if number < 2:
            slot = spool.open(5)
            slot.room()[:] = b"image"
            slot.filled(5)
            job = Job(
                operation=Operation.RESIZE,
                options=b"{}",
                image=slot,
                deadline=time.monotonic() + PATIENCE,
                on_outcome=outcomes.append,
            )
            assert worker.run(job)
            assert state_of(worker) is WorkerState.BUSY
            assert worker.job is job
    worker.kill("the test is over")
    assert ended == [worker]
    assert state_of(worker) is WorkerState.ENDED
    worker.kill("it is dead already")
    assert ended == [worker]
    await worker.reap()
    assert worker.end_reason == "the test is over"
    assert [outcome.error for outcome in outcomes] == [None, None]
    spool.close()
