"""How a worker is started, and what its exit status says."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from vipsrv.worker_config import WorkerConfig
from vipsrv.workers.channel import READY_SIZE, Ready
from vipsrv.workers.launch import exit_reason, launch, worker_environment

PATIENCE = 60


def descriptors() -> list[str]:
    return sorted(link.name for link in Path("/proc/self/fd").iterdir())


def shared_mappings() -> int:
    return Path("/proc/self/maps").read_text().count("/memfd:vipsrv-worker")


def test_a_worker_runs_and_has_the_other_end_of_the_socket() -> None:
    launched = launch(WorkerConfig())
    try:
        assert not launched.channel.getblocking()
        launched.channel.settimeout(PATIENCE)
        ready = Ready.unpack(launched.channel.recv(READY_SIZE, socket.MSG_WAITALL))
        assert ready.pid == launched.process.pid
        launched.channel.close()
        assert launched.process.wait(PATIENCE) == 0
    finally:
        launched.process.kill()
        launched.process.communicate(timeout=PATIENCE)
        if launched.shared is not None:
            launched.shared.close()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")
@pytest.mark.parametrize("call", ["subprocess.Popen", "os.ftruncate"])
def test_a_start_that_the_system_refuses_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BlockingIOError("no more processes")

    before, mapped = descriptors(), shared_mappings()
    with monkeypatch.context() as patch:
        patch.setattr(call, fail)
        with pytest.raises(BlockingIOError, match="no more processes") as refused:
            launch(WorkerConfig())
    # While the error refers to it, nothing is closed just because it is garbage.
    assert refused.value is not None
    assert (descriptors(), shared_mappings()) == (before, mapped)


def test_a_worker_gets_no_more_of_the_environment_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIPSRV_TOKEN", "secret")
    monkeypatch.setenv("VIPS_WARNING", "0")
    environment = worker_environment()
    assert environment["VIPS_WARNING"] == "0"
    assert environment["VIPS_CONCURRENCY"] == "1"
    assert environment["PATH"] == os.environ["PATH"]
    assert "VIPSRV_TOKEN" not in environment


@pytest.mark.parametrize(
    "name", ["LD_PRELOAD", "MALLOC_CONF", "MIMALLOC_PURGE_DELAY", "TCMALLOC_RELEASE_RATE"]
)
def test_an_operator_s_malloc_reaches_the_workers(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "value")
    assert worker_environment()[name] == "value"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (0, "it exited with code 0"),
        (3, "it exited with code 3"),
        (-signal.SIGSEGV, "it was killed by SIGSEGV"),
        (-signal.SIGSYS, "it was killed by SIGSYS (it made a system call that only an attack makes)"),
        (-signal.SIGKILL, "it was killed by SIGKILL (by hand, or by the kernel because memory ran out)"),
        (-200, "it was killed by signal 200"),
    ],
)
def test_an_exit_status_is_put_into_words(status: int, reason: str) -> None:
    assert exit_reason(status) == reason
