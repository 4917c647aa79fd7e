"""Cores of several servers on one machine: each takes its own, as long as there are enough."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.running_server import worker_pids
from vipsrv.batch.engines.own_cores import ServerOnCores, take_cores
from vipsrv.client import Client

CORES = sorted(os.sched_getaffinity(0))
pytestmark = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    os.sched_setaffinity(0, CORES[:2])
    yield
    os.sched_setaffinity(0, CORES)


def test_each_takes_other_cores_and_gives_them_back() -> None:
    with ExitStack() as first, ExitStack() as second, ExitStack() as third:
        one, two = take_cores(1, first), take_cores(1, second)
        assert one | two == set(CORES[:2])
        assert len(one) == len(two) == 1
        assert take_cores(1, third) == set()  # none is free: it shares all of them
        first.close()
        assert take_cores(1, third) == one


def test_all_cores_are_not_taken() -> None:
    with ExitStack() as stack:
        assert take_cores(2, stack) == set()
        assert len(take_cores(1, stack)) == 1


def test_a_server_and_its_workers_run_on_its_cores_only(tmp_path: Path) -> None:
    cores = {CORES[1]}
    server = ServerOnCores(cores, path=tmp_path / "s", workers=1)
    try:
        address = server.start()
        with Client(address=str(address)) as client:
            client.ping()
        (process,) = [
            int(pid)
            for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            if str(tmp_path / "s").encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        assert [os.sched_getaffinity(pid) for pid in (process, *worker_pids(process))] == [cores, cores]
    finally:
        server.stop()
    assert os.sched_getaffinity(0) == set(CORES[:2])
