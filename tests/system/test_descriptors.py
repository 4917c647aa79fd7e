"""A real server with few descriptors: what it says, and that what it serves then fits."""

import itertools
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support import bare_client
from tests.support.images import jpeg
from tests.support.running_server import wait_until, worker_pids
from vipsrv.server.descriptors import RESERVE, needed
from vipsrv.server.settings import ServerSettings
from vipsrv.workers.descriptor_reserve import WORKER_DESCRIPTORS

LARGE = 50_000_000  # an upload of that size goes to a file from the beginning
CONNECTIONS = 12
LIMIT = needed(ServerSettings(workers=1, connections=CONNECTIONS, ops_listen="off"))


@contextmanager
def few_descriptors(limit: int, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """``vipsrv serve`` with one worker and a hard limit of open files; log and spool are in ``folder``."""
    command = 'ulimit -n "$1"; exec "$0" -m vipsrv serve --port 0 --workers 1 --spool-dir "$2"'
    (folder / "spool").mkdir()
    with (
        (folder / "log").open("w") as stderr,
        subprocess.Popen(
            ["/bin/sh", "-c", command, sys.executable, str(limit), str(folder / "spool")],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def open_files(pid: int) -> list[str]:
    """The open files of a process, by name."""
    names = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            names.append(str(descriptor.readlink()))
    return names


def spool_files(pid: int, folder: Path) -> list[str]:
    return [name for name in open_files(pid) if name.startswith(str(folder))]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system has no /proc/PID/fd")
def test_what_the_limit_holds_leaves_the_reserve_free(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with few_descriptors(LIMIT, tmp_path) as process, ExitStack() as sockets:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        assert (
            f"--connections is {CONNECTIONS} instead of 4096: the limit of {LIMIT} open files"
            in log.read_text()
        )

        numbers = itertools.count(2)

        def connected() -> socket.socket:
            """A connection of an address of its own, because one address does not get all places."""
            source = (f"127.0.0.{next(numbers)}", 0)
            return sockets.enter_context(
                socket.create_connection(("127.0.0.1", port), bare_client.SECONDS, source)
            )

        uploading = [connected() for _ in range(CONNECTIONS - 1)]
        for sock in uploading:
            sock.sendall(bare_client.header(LARGE) + bytes(3_000_000))
        last = connected()
        last.sendall(bare_client.header(LARGE) + bytes(3_000_000))
        for excess in [connected() for _ in range(CONNECTIONS)]:  # turned away, and open for a while
            assert struct.unpack("!I", bare_client.read_exactly(excess, 4)) == (0,)
        wait_until(
            lambda: len(spool_files(process.pid, tmp_path / "spool")) == 2 * CONNECTIONS,
            "file for each upload",
        )
        assert len(open_files(process.pid)) - WORKER_DESCRIPTORS <= LIMIT - RESERVE

        (worker,) = worker_pids(process.pid)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: worker_pids(process.pid) not in ([], [worker]), "new worker")
        last.close()
        image = jpeg()
        wait_until(lambda: bare_client.ask(port, image, 20, 10).size > 0, "place for another client")
        assert "cannot be started" not in log.read_text()


def test_a_limit_that_holds_no_connection_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log"
    settings = ServerSettings(workers=1, connections=1, ops_listen="off")
    with few_descriptors(needed(settings) - 1, tmp_path) as process:
        assert process.wait(bare_client.SECONDS) == 1
    assert "open files is too low" in log.read_text()
    assert "Traceback" not in log.read_text()
