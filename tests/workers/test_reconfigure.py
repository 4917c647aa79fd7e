"""Workers that are replaced because their configuration has changed."""

import asyncio
import logging
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.images import jpeg
from tests.workers.pool_harness import CONFIG, Harness, harness, result_of, until
from vipsrv.errors import TooLarge
from vipsrv.worker_config import WorkerConfig
from vipsrv.workers.launch import worker_command
from vipsrv.workers.policy import PoolPolicy
from vipsrv.workers.process import WorkerProcess, WorkerState

FEW_PIXELS = replace(CONFIG, max_output_pixels=32 * 24 - 1)
"""A configuration that refuses the jobs of the tests."""

ALL_RELOADED = "all workers have the reloaded settings"
MAX_JOBS = PoolPolicy().max_jobs


def can_work(one: Harness) -> int:
    """How many workers have started."""
    states = {WorkerState.IDLE, WorkerState.BUSY}
    return sum(worker.state in states for worker in one.pool.workers)


async def test_all_workers_are_replaced_and_never_one_less_can_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with harness(tmp_path, size=3) as one:
        before = one.pool.workers
        fewest, most = 3, 3
        one.pool.reconfigure(FEW_PIXELS, max_jobs=MAX_JOBS)

        def replaced() -> bool:
            nonlocal fewest, most
            fewest, most = min(fewest, can_work(one)), max(most, len(one.pool.workers))
            return ALL_RELOADED in caplog.messages

        await until(replaced)
        assert not before & one.pool.workers
        await one.all_idle(3)
        assert (fewest, most, one.pool.idle) == (3, 4, 3)
        for _ in range(3):
            assert isinstance((await one.job(jpeg())).error, TooLarge)
    assert "without having had a job" not in caplog.text


async def test_a_job_is_finished_before_its_worker_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with harness(tmp_path) as one:
        first = one.worker
        _, long = one.start_job(jpeg(), width=12_000, height=12_000)
        one.pool.reconfigure(FEW_PIXELS, max_jobs=MAX_JOBS)
        await until(lambda: one.pool.idle == 1)
        assert not long.done()
        # The new worker serves meanwhile.
        assert isinstance((await one.job(jpeg())).error, TooLarge)
        result_of(await long)
        await until(lambda: ALL_RELOADED in caplog.messages)
        assert first not in one.pool.workers
        await one.all_idle()


async def test_the_last_of_several_configurations_holds(tmp_path: Path) -> None:
    async with harness(tmp_path, size=2) as one:
        for number in range(1, 5):
            one.pool.reconfigure(replace(CONFIG, quality=number), max_jobs=MAX_JOBS)
            await asyncio.sleep(0)
        one.pool.reconfigure(FEW_PIXELS, max_jobs=MAX_JOBS)
        await until(lambda: not one.pool.has_outdated)
        await one.all_idle(2)
        for _ in range(2):
            assert isinstance((await one.job(jpeg())).error, TooLarge)


async def test_the_same_configuration_replaces_no_worker(tmp_path: Path) -> None:
    async with harness(tmp_path) as one:
        worker = one.worker
        one.pool.reconfigure(replace(CONFIG), max_jobs=MAX_JOBS)
        assert one.pool.workers == {worker}
        result_of(await one.job(jpeg()))
        assert one.pool.workers == {worker}


async def test_workers_go_on_if_their_replacement_cannot_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def command(inherited: list[int], config: WorkerConfig) -> list[str]:
        if config == FEW_PIXELS:
            return [sys.executable, "-c", "raise SystemExit('no such limit')"]
        return worker_command(inherited, config)

    async with harness(tmp_path, command=command) as one:
        worker = one.worker
        one.pool.reconfigure(FEW_PIXELS, max_jobs=MAX_JOBS)
        await until(lambda: "no such limit; next try in 30 s" in caplog.text)
        result_of(await one.job(jpeg()))
        assert one.pool.workers == {worker}
        # Corrected: the worker has this configuration already.
        one.pool.reconfigure(CONFIG, max_jobs=MAX_JOBS)
        assert not one.pool.has_outdated
        one.pool.reconfigure(replace(CONFIG, quality=1), max_jobs=MAX_JOBS)
        await one.replaced(worker)
        result_of(await one.job(jpeg()))


async def test_a_worker_that_dies_meanwhile_is_replaced_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with harness(tmp_path, size=2) as one:
        victim: WorkerProcess = next(iter(one.pool.workers))
        one.pool.reconfigure(FEW_PIXELS, max_jobs=MAX_JOBS)
        victim.kill("it is in the way")
        await until(lambda: ALL_RELOADED in caplog.messages)
        await one.all_idle(2)
        assert one.pool.idle == 2


async def test_the_number_of_jobs_per_worker_can_be_changed(tmp_path: Path) -> None:
    async with harness(tmp_path) as one:
        worker = one.worker
        result_of(await one.job(jpeg()))
        one.pool.reconfigure(CONFIG, max_jobs=2)
        assert one.pool.workers == {worker}
        result_of(await one.job(jpeg()))
        await one.replaced(worker)
