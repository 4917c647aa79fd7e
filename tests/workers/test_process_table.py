"""What /proc says about a process, with real processes."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from vipsrv.workers import process_table
from vipsrv.workers.process_table import children_of, read_status, threads_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")

_PROCESS = """
import subprocess, sys, threading
for _ in range(4):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
child = subprocess.Popen(["sleep", "600"])
print(child.pid, flush=True)
sys.stdin.read()
child.kill()
"""


@pytest.fixture
def process() -> Iterator[tuple[int, int]]:
    """The ids of a process with five threads, and of its child."""
    with subprocess.Popen(
        [sys.executable, "-c", _PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        yield started.pid, int(started.stdout.readline())


def test_threads_children_and_memory(process: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    pid, child = process
    status = read_status(pid)
    assert status is not None
    assert status.threads == 5
    assert 1 << 20 < status.anonymous_memory < 1 << 30
    assert children_of(pid) == {child}
    assert len(list(threads_of(pid))) == 5
    monkeypatch.setattr(process_table, "WALKED_THREADS", 3)
    assert len(list(threads_of(pid))) == 3


def test_a_process_that_has_ended_is_unknown() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert read_status(ended.pid) is None
    assert children_of(ended.pid) == set()


def test_where_proc_is_missing_everything_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_table, "_PROC", "/does/not/exist")
    assert read_status(os.getpid()) is None
    assert children_of(os.getpid()) == set()
