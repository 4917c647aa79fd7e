"""What is logged when the file descriptors are used up."""

import asyncio
import errno
import os
import resource
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import bare_client
from tests.support.descriptors import descriptors_used_up
from tests.support.running_server import RunningServer, wait_until, worker_pids
from vipsrv.server.descriptor_watch import ENOUGH_FREE, KEPT_FREE, DescriptorWatch

LINE = "no file descriptor is left"


async def test_errors_of_accepting_are_one_line_and_others_are_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch, loop = DescriptorWatch(), asyncio.get_running_loop()
    for _ in range(100):
        watch.handle(
            loop,
            {"message": "socket.accept() out of system resource", "exception": OSError(errno.EMFILE, "")},
        )
    assert caplog.text.count(LINE) == 1
    memory = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    watch.check()
    for _ in range(100):
        watch.handle(loop, {"message": "socket.accept() out of system resource", "exception": memory})
        assert not watch.exhausted
    assert caplog.text.count(LINE) == 1
    assert caplog.text.count("a connection could not be accepted: Cannot allocate memory") == 1
    watch.handle(loop, {"message": "something else"})
    assert "something else" in caplog.text
    watch.check()
    assert not watch.exhausted


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system has no /proc/PID/fd")
def test_connections_do_not_get_the_last_descriptors() -> None:
    watch = DescriptorWatch()
    for spare, exhausted in (
        (KEPT_FREE, False),
        (KEPT_FREE - 1, True),
        (ENOUGH_FREE - 1, True),
        (ENOUGH_FREE, False),
        (KEPT_FREE, False),
    ):
        with descriptors_used_up(spare=spare):
            watch.check()
        assert watch.exhausted is exhausted


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of another process is set by Linux only")
def test_a_server_without_descriptors_says_so_once_and_goes_on_later() -> None:
    with RunningServer("--workers", "1") as server:
        limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (40, limits[1]))
        with ExitStack() as held:
            for _ in range(60):
                held.enter_context(socket.create_connection((server.host, server.port)))
            server.wait_for_log(LINE)
            waiting = held.enter_context(bare_client.connect(server.port))
            waiting.sendall(bare_client.header(3) + b"xyz")
            (worker,) = worker_pids(server.pid)
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda: worker_pids(server.pid) not in ([], [worker]), "new worker")
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
            assert bare_client.read_answer(waiting).error["status"] == 415
        assert server.log.count(LINE) == 1
        assert "cannot be started" not in server.log
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)

        def pings() -> bool:
            with bare_client.connect(server.port) as sock:
                sock.sendall(bare_client.header(3) + b"xyz")
                return bool(bare_client.read_answer(sock).error["status"] == 415)

        wait_until(pings, "answer")
        assert server.log.count(LINE) == 1
        assert "Traceback" not in server.log
