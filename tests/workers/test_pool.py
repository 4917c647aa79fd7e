"""The pool with real worker processes, honest ones and rogue ones."""

import asyncio
import errno
import io
import logging
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image, ImageCms

from tests.support.descriptors import descriptors_used_up
from tests.support.image_comparison import open_exact
from tests.support.images import encode, jpeg
from tests.workers.pool_harness import Harness, harness, result_of, until
from tests.workers.rogue import rogue
from vipsrv.errors import Busy, Cancelled, DeadlineExceeded, Draining, StartFailed, WorkerDied
from vipsrv.storage import Spool
from vipsrv.storage.chunk_pool import LARGE_CHUNK_SIZE
from vipsrv.worker_config import IN_MEMORY_SIZE, WorkerConfig
from vipsrv.workers import process_table
from vipsrv.workers.launch import worker_command
from vipsrv.workers.policy import PoolPolicy
from vipsrv.workers.pool import WorkerPool
from vipsrv.workers.process import EndCause
from vipsrv.workers.shared_memory import SharedMemory


def keep_icc(image: bytes, size: int) -> bytes:
    """A JPEG with so large a colour profile, which is sRGB with padding."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = (len(profile) + size).to_bytes(4, "big") + profile[4:] + bytes(size)
    target = io.BytesIO()
    with Image.open(io.BytesIO(image)) as opened:
        opened.save(target, "JPEG", icc_profile=profile)
    return target.getvalue()


def ended(pool: WorkerPool) -> dict[EndCause, int]:
    """The causes for which workers have ended, and how many."""
    return {cause: count for cause, count in pool.ended.items() if count}


def without_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems that have none: small images go through the socket."""
    monkeypatch.setattr(SharedMemory, "create", lambda: None)


@pytest.mark.parametrize("shared", [True, False])
async def test_small_and_large_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, shared: bool
) -> None:
    if not shared:
        without_shared_memory(monkeypatch)
    async with harness(tmp_path) as one:
        small, large = jpeg(), jpeg() + bytes(IN_MEMORY_SIZE)
        for image in (small, large, small):
            outcome = await one.job(image)
            assert open_exact(result_of(outcome)).size == (32, 24)
            assert outcome.source is not None
            assert outcome.source.size == len(image)
            assert 0 < outcome.started < outcome.ended


async def test_a_result_may_have_all_the_metadata_of_its_image(tmp_path: Path) -> None:
    """The profile is larger than what the pixels of a result could ever take."""
    few_pixels = WorkerConfig(max_output_pixels=65_536)
    async with harness(tmp_path, config=few_pixels) as one:
        worker = one.worker
        outcome = await one.job(keep_icc(jpeg(), 3 << 20), keep="icc")
        assert len(result_of(outcome)) > 3 << 20
        assert one.pool.workers == {worker}


async def test_a_job_that_kills_its_worker_fails_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with harness(tmp_path, size=2) as one:
        victim, outcome = one.start_job(jpeg(), width=20_000, height=20_000)
        (worker,) = (each for each in one.pool.workers if each.job is victim)
        os.kill(worker.pid, signal.SIGKILL)
        assert isinstance((await outcome).error, WorkerDied)
        assert victim.worker_lost
        await one.job(jpeg())
        await one.all_idle(2)
        assert worker not in one.pool.workers
        await until(lambda: "was killed by SIGKILL" in caplog.text)
        assert ended(one.pool) == {EndCause.CRASHED: 1}
        assert one.pool.jobs_done == 1


async def test_a_deadline_stops_the_job_and_spares_the_worker(tmp_path: Path) -> None:
    policy = PoolPolicy(stop_seconds=20)
    async with harness(tmp_path, policy=policy) as one:
        worker = one.worker
        _, outcome = one.start_job(jpeg(), seconds=0.1, width=12_000, height=12_000)
        await one.watch_until(outcome.done)
        assert isinstance(outcome.result().error, DeadlineExceeded)
        await one.all_idle()
        _, outcome = one.start_job(jpeg(), seconds=1000)
        one.pool.watch(time.monotonic() + 2 * policy.stop_seconds)  # the old order to stop is forgotten
        assert (await outcome).error is None
        assert one.pool.workers == {worker}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps processes to cores")
async def test_a_pinned_worker_has_all_cores_for_a_job_of_several_threads(tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) == 1:
        pytest.skip("there is only one core")
    async with harness(tmp_path, pinned=True) as one:
        for threads, seen in ((1, 1), (2, len(cores)), (1, 1)):
            _, outcome = one.start_job(jpeg(), threads=threads)
            assert len(os.sched_getaffinity(one.worker.pid)) == seen
            assert (await outcome).error is None
            await one.all_idle()


async def test_a_worker_that_does_not_stop_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    never_stops = rogue("ready(); job(); sleep()")
    async with harness(tmp_path, command=never_stops, policy=PoolPolicy(stop_seconds=0.05)) as one:
        worker = one.worker
        job, outcome = one.start_job(jpeg())
        one.pool.cancel(job)
        assert isinstance(outcome.result().error, Cancelled)
        await one.watch_until(lambda: worker not in one.pool.workers)
        await one.replaced(worker)
        await until(lambda: "did not stop its job within 0.05 s" in caplog.text)
        assert ended(one.pool) == {EndCause.STUCK: 1}


async def test_a_worker_that_does_not_start_in_time_is_killed_and_fails_the_start(tmp_path: Path) -> None:
    spool = Spool(directory=tmp_path, memory=1 << 20, disk=0)
    one = Harness(spool, command=rogue("sleep()"), policy=PoolPolicy(start_seconds=0.05))
    starting = asyncio.create_task(one.pool.start())
    await one.watch_until(starting.done)
    with pytest.raises(StartFailed, match=r"did not start within 0\.05 s"):
        await starting
    assert ended(one.pool) == {EndCause.START_TIMEOUT: 1}
    spool.close()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("sys.exit('no libvips here')", "exited with code 1: no libvips here"),
        ("channel.send(b'x' * 6000); sleep()", "handshake"),
        ("channel.close(); sleep()", "SIGKILL"),
        ("os.abort()", "SIGABRT"),
        ("import vipsrv.workers.channel as c; c.CHANNEL_VERSION += 1; ready(); sleep()", "version"),
    ],
    ids=["exits", "sends garbage", "closes its socket", "crashes", "speaks another version"],
)
async def test_a_worker_that_cannot_start_fails_the_start(tmp_path: Path, script: str, reason: str) -> None:
    with pytest.raises(StartFailed, match=reason):
        async with harness(tmp_path, size=2, command=rogue(script)):
            pass


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("ready(); job(); channel.send(b'x' * 6000); sleep()", "its message is not a reply"),
        ("ready(); reply(job() + 1, 3); sleep()", "a job that it does not have"),
        ("ready(); reply(job(), 0); sleep()", "not of the kind of its job"),
        ("ready(); reply(job(), 1 << 40); sleep()", "larger than the job's result can be"),
        ("ready(); reply(job(), 1 << 33, 2); sleep()", "larger than the job's result can be"),
        ("ready(); heavy(job(), (1 << 40) + 1); sleep()", "more memory than a job may take"),
        ("ready(); reply(job(), 2); sleep()", "more than its reply"),
        ("ready(); heavy(job()); heavy(job()); sleep()", "admitted as heavy"),
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
        "exit",
    ],
)
async def test_a_worker_that_misbehaves_costs_its_job_and_its_life(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, script: str, reason: str
) -> None:
    # More room on the disk than any worker may ask for.
    async with harness(tmp_path, disk=1 << 50, command=rogue(script)) as one:
        worker = one.worker
        _, outcome = one.start_job(jpeg(), admitted=False)

        def answered() -> bool:
            if one.heavy and one.pool.idle:
                one.pool.run(one.heavy.pop())
            return outcome.done()

        await until(answered)
        assert isinstance(outcome.result().error, WorkerDied)
        await one.replaced(worker)
        await until(lambda: reason in caplog.text)
        # One that has closed its socket may have crashed: it is killed, because it does not exit.
        assert set(ended(one.pool)) <= {EndCause.MISBEHAVED, EndCause.CRASHED}


@pytest.mark.parametrize(
    ("side", "memory"), [(100, 0), (1000, 0), (1000, 4 * LARGE_CHUNK_SIZE), (2000, 4 * LARGE_CHUNK_SIZE)]
)
async def test_a_result_without_room_costs_its_request_and_not_the_worker(
    tmp_path: Path, side: int, memory: int
) -> None:
    """A smaller result is refused when memory is used up, one that needs a file at once."""
    noise = Image.frombytes("RGB", (side, side), random.Random(1).randbytes(3 * side * side))
    image = encode(noise, "JPEG")
    async with harness(tmp_path, memory=16 << 20, disk=0) as one:
        worker = one.worker
        _, outcome = one.start_job(image, width=side, height=side, format="tiff")
        others = one.take_memory(down_to=memory)
        assert isinstance((await outcome).error, Busy)
        await one.all_idle()
        for other in others:
            other.close()
        assert one.spool.memory_left == 16 << 20  # everything is given back
        assert open_exact(result_of(await one.job(jpeg()))).size == (32, 24)
        assert one.pool.workers == {worker}


async def test_a_worker_that_exits_within_a_result_without_room_is_replaced(tmp_path: Path) -> None:
    half = rogue("ready(); reply(job(), 9 << 20); channel.close(); sleep()")
    async with harness(tmp_path, disk=0, command=half) as one:
        worker = one.worker
        _, outcome = one.start_job(jpeg())
        assert isinstance((await outcome).error, Busy)
        await one.replaced(worker)


async def test_a_worker_that_sends_something_without_a_job_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with harness(tmp_path, command=rogue("ready(); channel.send(b'hello'); sleep()")):
        await until(lambda: "it sent something without having a job" in caplog.text)


async def test_a_worker_that_replies_before_it_was_given_the_image_is_not_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_shared_memory(monkeypatch)
    async with harness(tmp_path, command=rogue("ready(); reply(job(), 3); sleep()")) as one:
        worker = one.worker
        assert result_of(await one.job(bytes(IN_MEMORY_SIZE))) == b"abc"
        assert worker not in one.pool.workers


async def test_a_heavy_job_comes_back_and_is_run_when_admitted(tmp_path: Path) -> None:
    async with harness(tmp_path, command=rogue("ready(); heavy(job()); reply(job(), 3); sleep()")) as one:
        job, outcome = one.start_job(jpeg(), admitted=False)
        await one.all_idle()
        assert one.heavy == [job]
        assert job.memory == 1 << 30
        assert not outcome.done()
        one.pool.run(job)
        assert result_of(await outcome) == b"abc"


async def test_a_heavy_job_that_nobody_waits_for_is_dropped(tmp_path: Path) -> None:
    async with harness(tmp_path, command=rogue("ready(); n = job(); job(); heavy(n); sleep()")) as one:
        job, _ = one.start_job(jpeg(), admitted=False)
        one.pool.cancel(job)
        await one.all_idle()
        assert one.heavy == []
        assert job.image.closed


async def test_a_worker_that_has_grown_is_replaced(tmp_path: Path) -> None:
    async with harness(tmp_path, policy=PoolPolicy(max_memory=1)) as one:
        worker = one.worker
        one.pool.watch(time.monotonic())
        assert worker not in one.pool.workers
        await one.replaced(worker)
        assert ended(one.pool) == {EndCause.MEMORY: 1}


async def test_a_worker_is_replaced_after_a_number_of_jobs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with harness(tmp_path, policy=PoolPolicy(max_jobs=1)) as one:
        worker = one.worker
        await one.job(jpeg())
        one.pool.watch(time.monotonic())
        assert worker not in one.pool.workers
        await one.replaced(worker)
        retired = f"worker {worker.pid} ended: it was retired"
        await until(lambda: retired in caplog.text)
        assert ended(one.pool) == {EndCause.JOBS: 1}
        assert one.pool.jobs_done == 1
    # As planned, so no warning.
    assert [record.levelno for record in caplog.records if retired in record.message] == [logging.INFO]


async def test_a_worker_is_replaced_after_a_number_of_jobs_even_if_it_is_never_idle(tmp_path: Path) -> None:
    async with harness(tmp_path, policy=PoolPolicy(max_jobs=1)) as one:
        worker = one.worker
        _, outcome = one.start_job(jpeg())
        one.pool.watch(time.monotonic())
        result_of(await outcome)
        assert worker not in one.pool.workers
        assert not one.pool.idle
        await one.replaced(worker)


async def test_a_job_may_be_cancelled_as_its_worker_dies(tmp_path: Path) -> None:
    async with harness(tmp_path) as one:
        worker = one.worker
        job, outcome = one.start_job(jpeg(), width=20_000, height=20_000)
        os.kill(worker.pid, signal.SIGKILL)
        # Blocks, so that the event loop does not learn of the end before the cancellation.
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222
        one.pool.cancel(job)
        assert isinstance(outcome.result().error, Cancelled)
        await one.replaced(worker)


async def test_workers_that_end_as_soon_as_they_are_ready_are_not_restarted_without_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = PoolPolicy(first_pause=600.0, trial_seconds=600.0)
    async with harness(tmp_path, command=rogue("ready(); sys.exit(3)"), policy=policy) as one:
        await until(lambda: "next try in 30 s" in caplog.text)
        assert not one.pool.workers
        assert ended(one.pool) == {EndCause.START_FAILED: policy.free_starts + 1}
    assert caplog.text.count("exited with code 3") == policy.free_starts + 1


def test_the_pause_between_failed_starts_doubles_up_to_the_longest() -> None:
    policy = PoolPolicy(free_starts=2, first_pause=1.0, longest_pause=5.0)
    assert [policy.pause_after(failures) for failures in range(1, 7)] == [0, 0, 2, 4, 5, 5]
    assert policy.pause_after(10**6) == 5


async def test_a_worker_that_cannot_be_replaced_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refusals: list[OSError] = []

    def command(inherited: list[int], config: WorkerConfig) -> list[str]:
        if refusals:
            raise refusals.pop()
        return worker_command(inherited, config)

    async with harness(tmp_path, command=command, policy=PoolPolicy(longest_pause=0.01)) as one:
        worker = one.worker
        refusals.append(OSError("no more processes"))
        one.start_job(jpeg())
        os.kill(worker.pid, signal.SIGKILL)
        await one.replaced(worker)
    assert "a worker process cannot be started: no more processes; next try in 0.01 s" in caplog.text


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("InternalError('MemoryError')", "not trusted after an unexpected error"),
        ("Cancelled('no')", "reports as cancelled a job that was not cancelled"),
        ("DeadlineExceeded('no')", "reports a deadline that is not over"),
    ],
)
async def test_a_worker_is_replaced_after_a_suspicious_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: str, reason: str
) -> None:
    async with harness(tmp_path, command=rogue(f"ready(); fail(job(), {error}); sleep()")) as one:
        worker = one.worker
        job, replied = one.start_job(jpeg())
        outcome = await replied
        assert job.worker_lost
        assert type(outcome.error).__name__ == error.partition("(")[0]  # the request gets the reply
        await one.replaced(worker)
        await until(lambda: reason in caplog.text)
        assert ended(one.pool) == {EndCause.DISTRUSTED: 1}


async def test_a_worker_stays_after_an_error_that_is_to_be_expected(tmp_path: Path) -> None:
    broken = rogue("ready(); fail(job(), CorruptImage('cut off')); reply(job(), 3); sleep()")
    async with harness(tmp_path, command=broken) as one:
        worker = one.worker
        assert (await one.job(jpeg())).error is not None
        assert result_of(await one.job(jpeg())) == b"abc"
        assert one.pool.workers == {worker}


async def test_a_heavy_job_that_is_given_back_counts_as_a_job(tmp_path: Path) -> None:
    policy = PoolPolicy(max_jobs=1)
    async with harness(tmp_path, command=rogue("ready(); heavy(job()); sleep()"), policy=policy) as one:
        worker = one.worker
        one.start_job(jpeg(), admitted=False)
        await one.replaced(worker)
        assert [job.predicted_seconds for job in one.heavy] == [1.5]
        for job in one.heavy:
            job.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            "[threading.Thread(target=sleep).start() for _ in range(150)]",
            "it has 151 threads; 100 are allowed",
        ),
        # The child ends when the worker has ended and closed the pipe.
        (
            "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)",
            "it has started a process",
        ),
        (
            "threading.Thread(target=sleep).start(); ready(); ctypes.CDLL(None).pthread_exit(0)",
            "its first thread has ended and others go on",
        ),
    ],
)
async def test_a_worker_that_starts_threads_or_processes_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, script: str, reason: str
) -> None:
    async with harness(tmp_path, command=rogue(f"{script}; ready(); sleep()")) as one:
        worker = one.worker
        await one.watch_until(lambda: worker not in one.pool.workers)
        await until(lambda: reason in caplog.text)
        assert ended(one.pool) == {EndCause.MISBEHAVED: 1}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
async def test_workers_that_proc_hides_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with harness(tmp_path, size=2) as one:
        (tmp_path / "self").mkdir()
        (tmp_path / "self" / "status").touch()
        monkeypatch.setattr(process_table, "_PROC", str(tmp_path))
        for seconds in (0, 10, 20):
            one.pool.watch(time.monotonic() + seconds)
        assert len(one.pool.workers) == 2
    assert caplog.text.count("/proc hides the workers from the server") == 1


async def test_a_worker_that_is_killed_while_the_server_starts_is_tried_again(tmp_path: Path) -> None:
    killed = rogue("os.kill(os.getpid(), 9)")
    starts: list[int] = []

    def command(inherited: list[int], config: WorkerConfig) -> list[str]:
        starts.append(1)
        return (killed if len(starts) < 3 else worker_command)(inherited, config)

    async with harness(tmp_path, command=command) as one:
        assert (await one.job(jpeg())).error is None
    assert len(starts) == 3


async def test_a_worker_that_is_killed_at_each_start_fails_the_start(tmp_path: Path) -> None:
    starts: list[int] = []

    def command(inherited: list[int], config: WorkerConfig) -> list[str]:
        starts.append(1)
        return rogue("os.kill(os.getpid(), 9)")(inherited, config)

    with pytest.raises(StartFailed, match="SIGKILL"):
        async with harness(tmp_path, command=command):
            pass
    assert len(starts) == PoolPolicy().start_tries


async def test_the_pool_is_not_ready_when_there_has_been_no_worker_for_a_while(tmp_path: Path) -> None:
    policy = PoolPolicy(unready_seconds=600.0, free_starts=0, first_pause=600.0, trial_seconds=600.0)
    command = rogue("ready(); job(); sys.exit(3)")
    async with harness(tmp_path, command=command, policy=policy) as one:
        one.pool.check_ready()
        os.kill(one.worker.pid, signal.SIGKILL)
        await until(lambda: not one.pool.workers)
        one.pool.check_ready()  # not for long
    policy = PoolPolicy(unready_seconds=0.0, free_starts=0, first_pause=600.0, trial_seconds=600.0)
    async with harness(tmp_path, command=command, policy=policy) as one:
        one.pool.check_ready()
        os.kill(one.worker.pid, signal.SIGKILL)
        await until(lambda: not one.pool.workers)
        with pytest.raises(Draining, match="no worker has been ready for 0 s"):
            one.pool.check_ready()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
async def test_a_worker_is_replaced_when_no_descriptor_is_left(tmp_path: Path) -> None:
    async with harness(tmp_path, policy=PoolPolicy(longest_pause=600.0)) as one:
        worker = one.worker
        with descriptors_used_up():
            _, outcome = one.start_job(jpeg(), width=20_000, height=20_000)
            os.kill(worker.pid, signal.SIGKILL)
            await outcome
            await one.replaced(worker)
            one.pool.watch(time.monotonic())
            assert (await one.job(jpeg())).error is None


async def test_workers_end_and_start_where_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a limit on tasks."""

    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with harness(tmp_path) as one:
        worker = one.worker
        monkeypatch.setattr(threading.Thread, "start", refused)
        _, outcome = one.start_job(jpeg(), width=20_000, height=20_000)
        os.kill(worker.pid, signal.SIGKILL)
        assert isinstance((await outcome).error, WorkerDied)
        await one.replaced(worker)
        monkeypatch.undo()


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
async def test_images_are_sent_where_no_memory_can_be_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(_name: str, _flags: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "memfd_create", refused, raising=False)
    async with harness(tmp_path) as one:
        assert open_exact(result_of(await one.job(jpeg()))).size == (32, 24)


@pytest.mark.parametrize(
    "script",
    [
        "ready(); n = job(); reply(n, 3); reply(n, 3); sleep()",
        "ready(); n = job(); reply(n, 3); ready(); sleep()",
        "ready(); n = job(); reply(n, 3); [channel.send(bytes(65536)) for _ in range(10**6)]",
        "ready(); n = job(); [channel.send(bytes(65536)) for _ in range(10**6)]",
        "ready(); ready(); sleep()",
        "ready(); [channel.send(bytes(65536)) for _ in range(10**6)]",
        "ready(); reply(1, 3); sleep()",
    ],
    ids=[
        "a reply twice",
        "ready after a reply",
        "a flood after it",
        "a flood",
        "ready twice",
        "late",
        "early",
    ],
)
async def test_what_nobody_asked_for_ends_the_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, script: str
) -> None:
    """What comes together with an awaited reply may be noticed before or after the reply is passed on."""
    policy = PoolPolicy(free_starts=0, first_pause=600.0, trial_seconds=600.0)
    async with harness(tmp_path, command=rogue(script), policy=policy) as one:
        worker = next(iter(one.pool.workers), None)
        if worker is not None and "job()" in script:
            one.start_job(jpeg())
        await until(lambda: worker not in one.pool.workers)
        reasons = ("without having a job", "more than its reply", "is not a reply")
        await until(lambda: any(reason in caplog.text for reason in reasons))
        if "job()" in script:
            await one.all_idle()
