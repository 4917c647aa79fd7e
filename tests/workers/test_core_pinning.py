"""Which core each worker is kept to, with real processes where that is the subject."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vipsrv.workers import core_pinning, process_table
from vipsrv.workers.core_pinning import CorePinning, best_move, core_ticks, waited_ns

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system keeps no process to a core"
)

# Three threads that do nothing, and a line once they run.
WORKER = """
import sys, threading
for _ in range(2):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


@pytest.fixture
def cores() -> list[int]:
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        pytest.skip("there is one core only")
    return allowed


def cores_of(pid: int) -> list[set[int]]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [os.sched_getaffinity(int(thread.name)) for thread in threads]


def test_all_threads_of_a_worker_keep_to_one_core_unless_it_is_spread(
    worker: subprocess.Popen[str], cores: list[int]
) -> None:
    one = CorePinning(cores)
    one.add(worker.pid)
    assert cores_of(worker.pid) == [{cores[0]}] * 3
    one.spread(worker.pid)
    assert cores_of(worker.pid) == [set(cores)] * 3
    one.gather(worker.pid)
    assert cores_of(worker.pid) == [{cores[0]}] * 3


def test_workers_are_spread_evenly_over_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[int, list[int]] = {}
    monkeypatch.setattr(core_pinning, "confine", lambda pid, cores: kept.update({pid: list(cores)}))
    one = CorePinning([4, 5, 6])
    for pid in range(1, 5):
        one.add(pid)
    assert kept == {1: [4], 2: [5], 3: [6], 4: [4]}
    one.remove(2)
    one.add(7)
    assert kept[7] == [5]


def test_a_worker_that_had_to_wait_moves_to_an_idle_core(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[int, list[int]] = {}
    monkeypatch.setattr(core_pinning, "confine", lambda pid, cores: kept.update({pid: list(cores)}))
    waited = {1: 0, 2: 0}
    ticks = {4: (0, 0), 5: (0, 0), 6: (0, 0)}
    monkeypatch.setattr(core_pinning, "waited_ns", waited.get)
    monkeypatch.setattr(core_pinning, "core_ticks", lambda: dict(ticks))
    one = CorePinning([4, 5, 6])
    one.add(1)
    one.add(2)
    one.balance()  # the first measurement, with which the next one is compared
    waited[2] += 500_000_000
    ticks.update({4: (10, 100), 5: (0, 100), 6: (90, 100)})
    one.balance()
    assert kept == {1: [4], 2: [6]}
    ticks.update({4: (20, 200), 5: (0, 200), 6: (100, 200)})
    one.balance()  # no worker had to wait in this second
    assert kept == {1: [4], 2: [6]}
    one.spread(2)
    waited[2] += 500_000_000
    ticks.update({4: (110, 300), 5: (0, 300), 6: (100, 300)})
    one.balance()  # a worker that has all cores is not moved
    one.gather(2)
    assert kept == {1: [4], 2: [6]}


@pytest.mark.parametrize(
    ("waits", "idle", "move"),
    [
        ({1: 0.5, 2: 0.7}, {4: 0.1, 5: 0.0, 6: 0.8}, (2, 6)),
        ({1: 0.5, 2: 0.7}, {4: 0.1, 5: 0.0, 6: 0.4}, None),
        ({1: 0.1, 2: 0.15}, {4: 0.1, 5: 0.0, 6: 1.0}, None),
        ({1: 0.0, 2: 0.7}, {4: 0.1, 5: 0.9, 6: 0.8}, None),
        ({}, {4: 1.0}, None),
        ({1: 1.0}, {}, None),
    ],
    ids=["moves", "no idle core", "no long wait", "its own is the idlest", "no worker", "first look"],
)
def test_a_worker_moves_only_if_that_helps(
    waits: dict[int, float], idle: dict[int, float], move: tuple[int, int] | None
) -> None:
    assert best_move(waits, {1: 4, 2: 5}, idle) == move


def test_a_worker_that_has_ended_is_no_error(worker: subprocess.Popen[str], cores: list[int]) -> None:
    one = CorePinning(cores)
    worker.kill()
    worker.wait()
    one.add(worker.pid)
    one.balance()
    one.balance()
    one.spread(worker.pid)
    one.gather(worker.pid)
    one.remove(worker.pid)


def test_a_refusal_by_the_system_is_logged_once(
    worker: subprocess.Popen[str], caplog: pytest.LogCaptureFixture
) -> None:
    no_such_core = 1 << 20
    before = cores_of(worker.pid)
    one = CorePinning([no_such_core])
    one.add(worker.pid)
    one.spread(worker.pid)
    one.gather(worker.pid)
    (record,) = caplog.records
    assert f"worker {worker.pid} cannot be pinned to a core" in record.message
    assert cores_of(worker.pid) == before


def test_the_times_of_the_kernel_can_be_read(worker: subprocess.Popen[str]) -> None:
    assert waited_ns(worker.pid) >= 0
    ticks = core_ticks()
    assert set(ticks) >= os.sched_getaffinity(0)
    assert all(0 <= idle <= total and total > 0 for idle, total in ticks.values())


def test_a_single_core_needs_no_pinning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3})
    assert CorePinning.create() is None
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 4})
    assert CorePinning.create() is not None


def test_workers_are_pinned_where_the_times_of_the_cores_cannot_be_read(
    worker: subprocess.Popen[str], cores: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As with systemd's ProcSubset=pid, which hides /proc/stat."""
    monkeypatch.setattr(core_pinning, "_PROC", tmp_path)
    one = CorePinning(cores)
    one.add(worker.pid)
    one.balance()
    one.balance()
    assert cores_of(worker.pid) == [{cores[0]}] * 3


def test_no_pinning_where_the_cores_may_not_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_pid: int) -> set[int]:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "sched_getaffinity", refused)
    assert CorePinning.create() is None


def test_only_some_threads_of_a_worker_with_many_are_looked_at(
    worker: subprocess.Popen[str], cores: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_table, "WALKED_THREADS", 2)
    CorePinning(cores).add(worker.pid)
    assert sorted(cores_of(worker.pid), key=len) == [{cores[0]}, {cores[0]}, set(cores)]
