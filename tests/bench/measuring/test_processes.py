import os
import subprocess
import sys
import threading
import time

import pytest

from bench.measuring.processes import anonymous_bytes, cpu_nanoseconds, usage

SPIN_NS = 50_000_000


def spin() -> None:
    """Take CPU time in this thread."""
    end = time.thread_time_ns() + SPIN_NS
    while time.thread_time_ns() < end:
        pass


def test_the_cpu_time_of_threads_that_have_ended_is_counted() -> None:
    before = cpu_nanoseconds(os.getpid())
    thread = threading.Thread(target=spin)
    thread.start()
    thread.join()
    assert cpu_nanoseconds(os.getpid()) - before >= SPIN_NS


def test_reads_and_writes_are_counted() -> None:
    source, sink = os.pipe()
    try:
        before = usage(os.getpid())
        for _ in range(100):
            os.write(sink, b"x")
            os.read(source, 1)
        used = usage(os.getpid()) - before
    finally:
        os.close(source)
        os.close(sink)
    assert used.reads >= 100
    assert used.writes >= 100


def test_waits_are_counted() -> None:
    before = usage(os.getpid())
    for _ in range(20):
        time.sleep(0.0001)  # gives up its core, which is what is counted
    assert (usage(os.getpid()) - before).waits >= 20


def test_a_process_that_has_ended_holds_no_memory_and_one_that_is_gone_is_none() -> None:
    assert anonymous_bytes(os.getpid()) > 1_000_000
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert anonymous_bytes(process.pid) == 0
    with pytest.raises(ProcessLookupError):
        cpu_nanoseconds(process.pid)
