"""CPU time and memory of this process and its children."""

import os
import subprocess
import sys

import pytest

from vipsrv.server.metrics.processes import FRESH_SECONDS, GatewayProcesses, own_usage
from vipsrv.workers.process_table import ProcessUsage, read_usage

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="there is no /proc")  # noqa: PTH110

_BURN = """
import time, sys
memory = bytearray(50 << 20)
while time.process_time() < 0.3:
    pass
print("done", flush=True)
sys.stdin.read()
"""


def child() -> "subprocess.Popen[bytes]":
    """A process that has used 0.3 s of CPU and 50 MB of memory, and waits for the end of its input."""
    process = subprocess.Popen([sys.executable, "-c", _BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"done\n"
    return process


def test_the_cpu_time_of_a_worker_remains_when_it_has_ended() -> None:
    pids: list[int] = []
    processes = GatewayProcesses(lambda: pids)
    before = processes.usage(0.0).workers
    assert before is not None
    process = child()
    pids.append(process.pid)
    running = processes.usage(10.0)
    assert running.workers is not None
    assert running.workers.cpu_seconds - before.cpu_seconds > 0.28
    assert running.workers.resident == running.largest_worker > 50 << 20

    process.communicate()
    pids.clear()
    after = processes.usage(20.0)
    assert after.workers is not None
    assert after.workers.cpu_seconds >= running.workers.cpu_seconds
    assert after.workers.resident == after.largest_worker == 0


def test_proc_is_not_read_again_for_a_while() -> None:
    reads = 0

    def pids() -> list[int]:
        nonlocal reads
        reads += 1
        return []

    processes = GatewayProcesses(pids)
    first = processes.usage(100.0)
    assert processes.usage(100.0 + 0.9 * FRESH_SECONDS) is first
    processes.usage(100.0 + FRESH_SECONDS)
    assert reads == 2


def test_workers_that_proc_does_not_show_are_unknown() -> None:
    usage = GatewayProcesses(lambda: [2**22 + 1]).usage(0.0)
    assert usage.workers is None
    assert usage.gateway.resident > 1 << 20


def test_own_usage_and_open_files() -> None:
    usage = GatewayProcesses(list).usage(0.0)
    assert usage.open_files is not None
    with open(os.devnull):  # noqa: PTH123 - for its descriptor
        assert GatewayProcesses(list).usage(0.0).open_files == usage.open_files + 1
    assert own_usage().cpu_seconds > 0


def test_the_name_of_a_program_may_have_parentheses_and_spaces(tmp_path: "os.PathLike[str]") -> None:
    program = os.path.join(tmp_path, "a) S 1 (b")  # noqa: PTH118
    os.symlink(sys.executable, program)  # noqa: PTH211
    process = subprocess.Popen(
        [program, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()  # before, it has the name of this process, and hardly any memory
        usage = read_usage(process.pid)
    finally:
        process.communicate(b"\n")
    assert isinstance(usage, ProcessUsage)
    assert 1 << 16 < usage.resident < 1 << 32
    assert usage.cpu_seconds < 60
