"""What /proc says about a process, with real processes."""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vipsrv.workers import process_table
from vipsrv.workers.process_table import children_of, is_hidden, read_status, threads_of

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
    assert 1 << 20 < status.memory < 1 << 30
    assert not status.first_thread_ended
    assert children_of(pid) == {child}
    assert len(list(threads_of(pid))) == 5
    monkeypatch.setattr(process_table, "WALKED_THREADS", 3)
    assert len(list(threads_of(pid))) == 3


def test_page_tables_count_as_memory() -> None:
    step, whole = 2 << 20, 16 << 30  # 8192 page tables of 4 KiB
    before = read_status(os.getpid())
    with mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ) as memory:
        assert not any(memory[one] for one in range(0, whole, step))
        after = read_status(os.getpid())
    assert before is not None
    assert after is not None
    assert after.memory > before.memory + (24 << 20)


def test_a_page_of_children_is_not_all_of_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The kernel gives a page for each read."""
    thread = tmp_path / "1" / "task" / "1"
    thread.mkdir(parents=True)
    (thread / "children").write_text("".join(f"{one} " for one in range(10_000, 12_000)))
    read = os.read
    monkeypatch.setattr(os, "read", lambda file, size: read(file, min(size, 4096)))
    monkeypatch.setattr(process_table, "_PROC", str(tmp_path))
    assert children_of(1) == set(range(10_000, 12_000))


def test_a_process_that_proc_hides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not is_hidden(os.getpid())
    monkeypatch.setattr(process_table, "_PROC", str(tmp_path))
    assert not is_hidden(1)  # there is no /proc
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").touch()
    assert is_hidden(1)


def test_a_process_that_has_ended_is_unknown() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert read_status(ended.pid) is None
    assert children_of(ended.pid) == set()


def test_where_proc_is_missing_everything_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_table, "_PROC", "/does/not/exist")
    assert read_status(os.getpid()) is None
    assert children_of(os.getpid()) == set()
