"""The pool with real worker processes, good ones and such as have turned against it."""

import asyncio
import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.image_comparison import open_exact
from tests.support.images import encode, jpeg
from vipsrv.errors import Busy, Cancelled, DeadlineExceeded, StartFailed, WorkerDied
from vipsrv.storage.chunks import LARGE_CHUNK_SIZE
from vipsrv.storage.spool import Slot, Spool
from vipsrv.worker_config import IN_MEMORY_SIZE, WorkerConfig
from vipsrv.workers import pool as pool_module
from vipsrv.workers import process
from vipsrv.workers.channel import Operation
from vipsrv.workers.job import Job, Outcome
from vipsrv.workers.pool import WorkerPool
from vipsrv.workers.shared_memory import SharedMemory

CONFIG = WorkerConfig(
    max_pixels=10**9,
    max_output_pixels=10**9,
    job_memory=1 << 40,
    max_expansion=10**9,
    quality=85,
    formats=None,
    tolerate_truncated=False,
)

MISCHIEF = """
import os, socket, sys, time
from vipsrv.options import ImageInfo, OutputInfo
from vipsrv.workers.channel import JOB_SIZE, JobHead, Ready, ReplyHead
channel = socket.socket(fileno=int(sys.argv[1]))
def ready():
    channel.sendall(Ready(pid=1, readers={"jpeg": "libvips"}, writers=("jpeg",)).pack())
def job():
    head = JobHead.unpack(channel.recv(JOB_SIZE, socket.MSG_WAITALL))
    channel.recv(head.options_size, socket.MSG_WAITALL)
    return head.job_id
def reply(job_id, size, count=1):
    source = ImageInfo(format="jpeg", width=9, height=9, pages=1, has_alpha=False, orientation=1, size=9)
    outputs = (OutputInfo(width=9, height=9, format="jpeg", quality=85, size=size),) * count if size else ()
    channel.sendall(ReplyHead(job_id=job_id, source=source, outputs=outputs).pack() + b"abc")
def heavy(job_id, memory=1 << 30):
    channel.sendall(ReplyHead(job_id=job_id, needs=memory).pack())
def sleep():
    time.sleep(600)
"""
"""Words for workers that have turned against the gateway."""


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


class Harness:
    """A pool and what is needed to give it jobs."""

    def __init__(self, folder: Path, size: int, *, pinned: bool, memory: int, disk: int) -> None:
        self.spool = Spool(directory=folder, memory=memory, disk=disk)
        self.idle = asyncio.Event()
        self.heavy: list[Job] = []
        self.pool = WorkerPool(
            self.spool,
            CONFIG,
            size=size,
            on_idle=self.idle.set,
            on_heavy=self.heavy.append,
            pinned=pinned,
        )

    async def job(self, image: bytes, *, seconds: float = 60, **options: Any) -> Outcome:
        """The outcome of one job; waits for an idle worker first."""
        slot = self._slot(image)
        while not slot.complete:  # a file is still being written
            await asyncio.sleep(0.001)
        return await self.start_job(slot, seconds=seconds, **options)[1]

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
        job = Job(
            operation=Operation.RESIZE,
            options=json.dumps({"width": 32, "height": 24, **options}).encode(),
            image=image if isinstance(image, Slot) else self._slot(image),
            deadline=time.monotonic() + seconds,
            on_outcome=outcome.set_result,
            memory=int(admitted),
            threads=threads,
        )
        assert self.pool.run(job)
        return job, outcome

    def _slot(self, image: bytes) -> Slot:
        slot = self.spool.open(len(image))
        rest = memoryview(image)
        while rest:
            room = slot.room()
            room[:] = rest[: len(room)]
            slot.filled(len(room))
            rest = rest[len(room) :]
        return slot

    def take_memory(self, *, down_to: int) -> list[Slot]:
        """Slots that hold the spool's memory, except for about so many bytes."""
        slots = []
        while (size := self.spool.memory_left - down_to) > 0:
            slots.append(self._slot(bytes(min(size, IN_MEMORY_SIZE))))
        return slots

    async def next_idle(self) -> None:
        self.idle.clear()
        await self.idle.wait()

    async def watch_until(self, outcome: "asyncio.Future[Outcome]") -> Outcome:
        """As the gateway does: look at the clock again and again."""
        while not outcome.done():
            self.pool.watch(time.monotonic())
            await asyncio.sleep(0.01)
        return outcome.result()


@asynccontextmanager
async def harness(
    folder: Path, size: int = 1, *, pinned: bool = False, memory: int = 32 << 20, disk: int = 64 << 20
) -> AsyncIterator[Harness]:
    one = Harness(folder, size, pinned=pinned, memory=memory, disk=disk)
    await one.pool.start()
    try:
        yield one
    finally:
        await one.pool.stop()
        one.spool.close()


def picture(outcome: Outcome) -> bytes:
    assert outcome.error is None, outcome.error
    assert outcome.result is not None
    data = b"".join(outcome.result.views)
    outcome.result.close()
    return data


def mischief(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Every worker from now on runs this instead."""
    code = MISCHIEF + script

    def command(inherited: list[int], _config: dict[str, Any]) -> list[str]:
        return [sys.executable, "-c", code, str(inherited[0])]

    monkeypatch.setattr(process, "worker_command", command)


def without_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems that have none: small images go through the socket."""
    monkeypatch.setattr(SharedMemory, "create", lambda: None)


@pytest.mark.parametrize("shared", [True, False])
def test_small_and_large_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, shared: bool) -> None:
    if not shared:
        without_shared_memory(monkeypatch)

    async def test() -> None:
        async with harness(tmp_path) as one:
            small, large = jpeg(), jpeg() + bytes(IN_MEMORY_SIZE)
            for image in (small, large, small):
                outcome = await one.job(image)
                assert open_exact(picture(outcome)).size == (32, 24)
                assert outcome.source is not None
                assert outcome.source.size == len(image)
                assert 0 < outcome.started < outcome.ended

    run(test)


def test_a_job_that_kills_its_worker_fails_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with harness(tmp_path, size=2) as one:
            victim, outcome = one.start_job(jpeg(), width=20_000, height=20_000)
            (worker,) = (each for each in one.pool._workers if each.job is victim)
            os.kill(worker.pid, signal.SIGKILL)
            assert isinstance((await outcome).error, WorkerDied)
            await one.job(jpeg())
            while len(one.pool._idle) < 2:
                await one.next_idle()
            assert worker not in one.pool._workers

    run(test)
    assert "was killed by SIGKILL" in caplog.text


def test_a_deadline_stops_the_job_and_spares_the_worker(tmp_path: Path) -> None:
    async def test() -> None:
        async with harness(tmp_path) as one:
            (worker,) = one.pool._workers
            _, outcome = one.start_job(jpeg(), seconds=0.1, width=12_000, height=12_000)
            assert isinstance((await one.watch_until(outcome)).error, DeadlineExceeded)
            while not one.pool.has_idle:
                await one.next_idle()
            _, outcome = one.start_job(jpeg())
            one.pool.watch(time.monotonic() + 2 * pool_module.STOP_SECONDS)
            assert (await outcome).error is None
            assert one.pool._workers == {worker}

    run(test)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps processes to cores")
def test_a_worker_that_is_kept_to_a_core_has_all_for_a_job_of_several_threads(tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) == 1:
        pytest.skip("there is only one core")

    async def test() -> None:
        async with harness(tmp_path, pinned=True) as one:
            (worker,) = one.pool._workers
            for threads, seen in ((1, 1), (2, len(cores)), (1, 1)):
                _, outcome = one.start_job(jpeg(), threads=threads)
                assert len(os.sched_getaffinity(worker.pid)) == seen
                assert (await outcome).error is None
                while not one.pool.has_idle:
                    await one.next_idle()

    run(test)


def test_a_worker_that_does_not_stop_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mischief(monkeypatch, "ready(); job(); sleep()")
    monkeypatch.setattr(pool_module, "STOP_SECONDS", 0.05)

    async def test() -> None:
        async with harness(tmp_path) as one:
            (worker,) = one.pool._workers
            job, outcome = one.start_job(jpeg())
            one.pool.cancel(job)
            assert isinstance(outcome.result().error, Cancelled)
            while worker in one.pool._workers:
                one.pool.watch(time.monotonic())
                await asyncio.sleep(0.01)
            await one.next_idle()

    run(test)
    assert "did not stop its job" in caplog.text


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("sys.exit('no libvips here')", "exited with code 1: no libvips here"),
        ("channel.send(b'x' * 6000); sleep()", "the handshake is none"),
        ("channel.close(); sleep()", "SIGKILL"),
        ("os.abort()", "SIGABRT"),
    ],
)
def test_a_worker_that_cannot_start_fails_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    mischief(monkeypatch, script)

    async def test() -> None:
        with pytest.raises(StartFailed, match=reason):
            async with harness(tmp_path, size=2):
                pass

    run(test)


def test_it_stops_where_a_worker_has_been_reaped_and_not_yet_forgotten(tmp_path: Path) -> None:
    async def test() -> None:
        async with harness(tmp_path) as one:
            reaped = asyncio.create_task(asyncio.sleep(0))
            await reaped
            one.pool._reaping.add(reaped)

    run(test)


def test_a_worker_of_another_version_fails_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mischief(monkeypatch, "import vipsrv.workers.channel as c; c.CHANNEL_VERSION += 1; ready(); sleep()")

    async def test() -> None:
        with pytest.raises(StartFailed, match="version"):
            async with harness(tmp_path):
                pass

    run(test)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("ready(); job(); channel.send(b'x' * 6000); sleep()", "the head of its reply is none"),
        ("ready(); reply(job() + 1, 3); sleep()", "a job that it does not have"),
        ("ready(); reply(job(), 0); sleep()", "not of the kind of its job"),
        ("ready(); reply(job(), 1 << 40); sleep()", "larger than any can be"),
        ("ready(); reply(job(), 1 << 33, 2); sleep()", "larger than any can be"),
        ("ready(); heavy(job(), (1 << 40) + 1); sleep()", "more memory than a job may take"),
        ("ready(); reply(job(), 2); sleep()", "more than its reply"),
        ("ready(); heavy(job()); heavy(job()); sleep()", "heavy that was admitted"),
        ("ready(); reply(job(), 9); channel.close(); sleep()", "SIGKILL"),
        ("ready(); job(); os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("ready(); job(); sys.exit(3)", "exited with code 3"),
    ],
    ids=[
        "garbage",
        "another job",
        "no result",
        "a huge result",
        "huge results together",
        "too much memory",
        "too much of a result",
        "heavy twice",
        "half a result",
        "crash",
        "leaves",
    ],
)
def test_a_worker_that_misbehaves_costs_its_job_and_its_life(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    script: str,
    reason: str,
) -> None:
    mischief(monkeypatch, script)

    async def test() -> None:
        async with harness(tmp_path, disk=1 << 50) as one:  # more than any worker may ask for
            (worker,) = one.pool._workers
            _, outcome = one.start_job(jpeg(), admitted=False)
            while not outcome.done():
                if one.heavy and one.pool.has_idle:
                    one.pool.run(one.heavy.pop())
                await asyncio.sleep(0.01)
            assert isinstance(outcome.result().error, WorkerDied)
            await one.next_idle()
            assert worker not in one.pool._workers
            await asyncio.gather(*one.pool._reaping)

    run(test)
    assert reason in caplog.text


@pytest.mark.parametrize(
    ("side", "memory"), [(100, 0), (1000, 0), (1000, 4 * LARGE_CHUNK_SIZE), (2000, 4 * LARGE_CHUNK_SIZE)]
)
def test_a_result_without_room_costs_its_request_and_not_the_worker(
    tmp_path: Path, side: int, memory: int
) -> None:
    """A smaller result is refused when memory is used up, one that needs a file at once."""
    noise = Image.frombytes("RGB", (side, side), random.Random(1).randbytes(3 * side * side))
    image = encode(noise, "JPEG")

    async def test() -> None:
        async with harness(tmp_path, memory=16 << 20, disk=0) as one:
            (worker,) = one.pool._workers
            _, outcome = one.start_job(image, width=side, height=side, format="tiff")
            others = one.take_memory(down_to=memory)
            assert isinstance((await outcome).error, Busy)
            while not one.pool.has_idle:
                await one.next_idle()
            for other in others:
                other.close()
            assert one.spool.memory_left == 16 << 20  # all is given back
            assert open_exact(picture(await one.job(jpeg()))).size == (32, 24)
            assert one.pool._workers == {worker}

    run(test)


def test_a_worker_that_leaves_within_a_result_without_room_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mischief(monkeypatch, "ready(); reply(job(), 9 << 20); channel.close(); sleep()")

    async def test() -> None:
        async with harness(tmp_path, disk=0) as one:
            (worker,) = one.pool._workers
            _, outcome = one.start_job(jpeg())
            assert isinstance((await outcome).error, Busy)
            await one.next_idle()
            assert worker not in one.pool._workers

    run(test)


def test_a_worker_that_speaks_unasked_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mischief(monkeypatch, "ready(); channel.send(b'hello'); sleep()")

    async def test() -> None:
        async with harness(tmp_path) as one:
            while "without having been asked" not in caplog.text:
                await one.next_idle()

    run(test)


def test_a_worker_that_replies_before_it_was_given_all_is_not_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mischief(monkeypatch, "ready(); reply(job(), 3); sleep()")
    without_shared_memory(monkeypatch)

    async def test() -> None:
        async with harness(tmp_path) as one:
            (worker,) = one.pool._workers
            outcome = await one.job(bytes(IN_MEMORY_SIZE))
            assert picture(outcome) == b"abc"
            assert worker not in one.pool._workers

    run(test)


def test_a_worker_gets_no_more_of_the_environment_than_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIPSRV_TOKEN", "secret")
    monkeypatch.setenv("VIPS_WARNING", "0")

    async def test() -> None:
        async with harness(tmp_path) as one:
            (worker,) = one.pool._workers
            names = {
                entry.split(b"=")[0]
                for entry in Path(f"/proc/{worker.pid}/environ").read_bytes().split(b"\0")
            }
            assert {b"VIPS_WARNING", b"VIPS_CONCURRENCY", b"PATH"} <= names
            assert b"VIPSRV_TOKEN" not in names

    run(test)


def test_a_heavy_job_comes_back_and_is_run_when_admitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mischief(monkeypatch, "ready(); heavy(job()); reply(job(), 3); sleep()")

    async def test() -> None:
        async with harness(tmp_path) as one:
            job, outcome = one.start_job(jpeg(), admitted=False)
            await one.next_idle()
            assert one.heavy == [job]
            assert job.memory == 1 << 30
            assert not outcome.done()
            one.pool.run(job)
            assert picture(await outcome) == b"abc"

    run(test)


def test_a_heavy_job_that_nobody_waits_for_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mischief(monkeypatch, "ready(); n = job(); job(); heavy(n); sleep()")

    async def test() -> None:
        async with harness(tmp_path) as one:
            job, _ = one.start_job(jpeg(), admitted=False)
            one.pool.cancel(job)
            await one.next_idle()
            assert one.heavy == []
            assert job.image._closed

    run(test)


def test_a_grown_worker_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MAX_ANONYMOUS_MEMORY", 1)

    async def test() -> None:
        async with harness(tmp_path) as one:
            (worker,) = one.pool._workers
            one.pool.watch(time.monotonic())
            assert worker not in one.pool._workers
            await one.next_idle()

    run(test)


def test_a_worker_is_replaced_after_a_number_of_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool_module, "MAX_JOBS", 1)
    caplog.set_level(logging.INFO)
    pids = []

    async def test() -> None:
        async with harness(tmp_path) as one:
            (worker,) = one.pool._workers
            pids.append(worker.pid)
            await one.job(jpeg())
            one.pool.watch(time.monotonic())
            assert worker not in one.pool._workers
            await one.next_idle()
            await asyncio.gather(*one.pool._reaping)

    run(test)
    # As planned, and nothing to be warned of.
    told = [
        record for record in caplog.records if f"worker {pids[0]} ended: it was retired" in record.message
    ]
    assert [record.levelno for record in told] == [logging.INFO]


def test_a_worker_is_replaced_after_a_number_of_jobs_though_it_is_never_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "MAX_JOBS", 1)

    async def test() -> None:
        async with harness(tmp_path) as one:
            (worker,) = one.pool._workers
            _, outcome = one.start_job(jpeg())
            one.pool.watch(time.monotonic())
            picture(await outcome)
            assert worker not in one.pool._workers
            assert not one.pool.has_idle
            await one.next_idle()

    run(test)


def test_a_worker_that_sends_without_end_lets_the_loop_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or this would not come back."""

    async def test() -> None:
        async with harness(tmp_path) as one:
            (worker,) = one.pool._workers
            with monkeypatch.context() as patch:
                patch.setattr(worker, "_read", lambda: True)
                worker._readable()
            assert (await one.job(jpeg())).error is None

    run(test)


def test_a_job_may_be_cancelled_as_its_worker_dies(tmp_path: Path) -> None:
    async def test() -> None:
        async with harness(tmp_path) as one:
            (worker,) = one.pool._workers
            job, outcome = one.start_job(jpeg(), width=20_000, height=20_000)
            os.kill(worker.pid, signal.SIGKILL)
            os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - nobody shall know
            one.pool.cancel(job)
            assert isinstance(outcome.result().error, Cancelled)
            await one.next_idle()
            assert worker not in one.pool._workers

    run(test)


def test_workers_that_end_as_soon_as_they_are_ready_are_not_started_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool_module, "_FIRST_PAUSE", 600.0)
    mischief(monkeypatch, "ready(); sys.exit(3)")

    async def test() -> None:
        async with harness(tmp_path) as one:
            while "next try in 30 s" not in caplog.text:
                await asyncio.sleep(0.01)
            assert not one.pool._workers

    run(test)
    assert caplog.text.count("exited with code 3") == pool_module._FREE_STARTS + 1


@pytest.mark.parametrize("call", ["subprocess.Popen", "os.ftruncate"])
def test_a_worker_that_the_system_has_no_room_for_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BlockingIOError("no more processes")

    async def test() -> None:
        before = sorted(Path("/proc/self/fd").iterdir())
        with pytest.raises(StartFailed, match="no more processes"):
            async with harness(tmp_path):
                pass
        assert sorted(Path("/proc/self/fd").iterdir()) == before

    monkeypatch.setattr(call, fail)
    run(test)
