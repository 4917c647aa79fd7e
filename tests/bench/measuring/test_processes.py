import mmap
import os
import subprocess
import sys
import threading
import time

import pytest

from bench.measuring.processes import anonymous_bytes, cpu_nanoseconds, proportional_bytes, usage

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


WAITER = """
import time
print(flush=True)
input()
for _ in range(20):
    time.sleep(0.0001)
print(flush=True)
input()
"""
"""Gives up its core twenty times, which is what is counted."""


def test_waits_are_counted() -> None:
    # In a process of its own, because threads of this one may end, and their waits are no longer counted.
    command = [sys.executable, "-c", WAITER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        before = usage(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        used = usage(process.pid) - before
    assert used.waits >= 20


SHARER = """
import mmap, sys
with mmap.mmap(int(sys.argv[1]), 0) as shared:
    touched = sum(shared[at] for at in range(0, len(shared), mmap.PAGESIZE))
    print(touched, flush=True)
    input()
"""


def test_shared_memory_is_divided_between_its_processes() -> None:
    size = 64 << 20
    file = os.memfd_create("shared")
    try:
        os.ftruncate(file, size)
        command = [sys.executable, "-c", SHARER, str(file)]
        with mmap.mmap(file, size) as shared:
            before = proportional_bytes(os.getpid())
            for at in range(0, size, mmap.PAGESIZE):
                shared[at] = 1
            alone = proportional_bytes(os.getpid()) - before
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[file]
            ) as process:
                assert process.stdout is not None
                assert int(process.stdout.readline()) == size // mmap.PAGESIZE
                divided = proportional_bytes(os.getpid()) - before
                other = proportional_bytes(process.pid)
                process.kill()
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
                assert proportional_bytes(process.pid) == 0
    finally:
        os.close(file)
    assert alone > 0.9 * size
    assert divided < 0.6 * size
    assert 0.4 * size < other < 0.9 * size
    with pytest.raises(FileNotFoundError):
        proportional_bytes(process.pid)


def test_a_zombie_has_no_memory_and_a_missing_process_is_an_error() -> None:
    assert anonymous_bytes(os.getpid()) > 1_000_000
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert anonymous_bytes(process.pid) == 0
    with pytest.raises(ProcessLookupError):
        cpu_nanoseconds(process.pid)


PEAK = """
from bench.measuring.processes import peak_resident_bytes
import os
before = peak_resident_bytes(os.getpid())
block = b"x" * 50_000_000
del block
print(before, peak_resident_bytes(os.getpid()))
"""


def test_the_peak_is_that_of_the_process_alone() -> None:
    block = b"x" * 300_000_000
    said = subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True).stdout
    del block
    before, after = map(int, said.split())
    assert before < 100e6
    assert 45e6 <= after - before < 60e6
