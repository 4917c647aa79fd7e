"""A pool with real worker processes, its spool, and what is needed to give it jobs."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.slots import fill, fill_at_once
from vipsrv.storage import Slot, Spool
from vipsrv.worker_config import IN_MEMORY_SIZE, WorkerConfig
from vipsrv.workers.channel import Operation
from vipsrv.workers.job import Job, Outcome
from vipsrv.workers.pool import WorkerPool
from vipsrv.workers.process import WorkerProcess, WorkerState

PATIENCE = 60
"""Seconds after which a test gives up waiting, on a machine however busy."""

CONFIG = WorkerConfig(
    max_pixels=10**9, max_output_pixels=10**9, job_memory=1 << 40, max_expansion=10**9, quality=85
)


class Harness:
    """A pool, its spool, and what is needed to give it jobs."""

    def __init__(self, spool: Spool, **pool: Any) -> None:
        self.spool = spool
        self.heavy: list[Job] = []
        self.pool = WorkerPool(
            spool, on_idle=lambda: None, on_heavy=self.heavy.append, **{"config": CONFIG, "size": 1, **pool}
        )

    @property
    def worker(self) -> WorkerProcess:
        """The only worker."""
        (worker,) = self.pool.workers
        return worker

    async def job(self, image: bytes, **options: Any) -> Outcome:
        """The outcome of one job."""
        slot = await fill(self.spool.open(len(image)), image)
        return await self.start_job(slot, **options)[1]

    def start_job(
        self,
        image: bytes | Slot,
        *,
        seconds: float = 60,
        admitted: bool = True,
        threads: int = 1,
        **options: Any,
    ) -> tuple[Job, "asyncio.Future[Outcome]"]:
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        slot = image if isinstance(image, Slot) else fill_at_once(self.spool.open(len(image)), image)
        job = Job(
            operation=Operation.RESIZE,
            options=json.dumps({"width": 32, "height": 24, **options}).encode(),
            image=slot,
            deadline=time.monotonic() + seconds,
            on_outcome=outcome.set_result,
            memory=int(admitted),
            threads=threads,
        )
        assert self.pool.run(job)
        return job, outcome

    def take_memory(self, *, down_to: int) -> list[Slot]:
        """Slots that hold the spool's memory, except for about so many bytes."""
        slots = []
        while (size := self.spool.memory_left - down_to) > 0:
            taken = min(size, IN_MEMORY_SIZE)
            slots.append(fill_at_once(self.spool.open(taken), bytes(taken)))
        return slots

    async def all_idle(self, size: int = 1) -> None:
        """Wait until so many workers run and none has a job."""
        await until(
            lambda: (
                len(self.pool.workers) == size
                and all(worker.state is WorkerState.IDLE for worker in self.pool.workers)
            )
        )

    async def replaced(self, worker: WorkerProcess) -> None:
        """Wait until another worker has taken the place of this one."""
        await until(lambda: worker not in self.pool.workers and self.pool.idle > 0)

    async def watch_until(self, condition: Callable[[], bool]) -> None:
        """Look at the clock again and again, as the gateway does."""

        def watched() -> bool:
            self.pool.watch(time.monotonic())
            return condition()

        await until(watched)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def harness(
    folder: Path, *, memory: int = 32 << 20, disk: int = 64 << 20, **pool: Any
) -> AsyncIterator[Harness]:
    one = Harness(Spool(directory=folder, memory=memory, disk=disk), **pool)
    try:
        await asyncio.wait_for(one.pool.start(), PATIENCE)
        yield one
    finally:
        await asyncio.wait_for(one.pool.stop(), PATIENCE)
        one.spool.close()


def result_of(outcome: Outcome) -> bytes:
    assert outcome.error is None, outcome.error
    assert outcome.result is not None
    data = b"".join(outcome.result.views)
    outcome.result.close()
    return data
