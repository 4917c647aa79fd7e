"""The server of one's own: it goes with what started it, however that came."""

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.client.fake_server import SECONDS
from vipsrv.client import Client
from vipsrv.client.embedded import EmbeddedServer
from vipsrv.errors import StartFailed

START_AND_WAIT = """
import sys
from vipsrv.client.embedded import EmbeddedServer
with EmbeddedServer() as server:
    print(server.port, flush=True)
    sys.stdin.read()
"""


def gone(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), SECONDS).close()
    except ConnectionRefusedError:
        return True
    return False


def test_it_serves_within_the_context_and_is_gone_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIPSRV_LISTEN", "127.0.0.1:1")  # would win over the port of its own
    with EmbeddedServer() as server, Client(server.host, server.port) as client:
        assert client.ping() > 0
    assert gone(server.port)


def test_it_is_gone_after_an_error() -> None:
    server = EmbeddedServer()
    with pytest.raises(KeyboardInterrupt), server as address:
        raise KeyboardInterrupt
    assert gone(address.port)


def test_ctrl_c_as_it_starts_leaves_nothing_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Timer] = []
    start = threading.Timer.start

    def interrupted(timer: threading.Timer) -> None:
        start(timer)
        started.append(timer)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Timer, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), EmbeddedServer():
        pass
    (killer,) = started
    assert killer.daemon
    killer.join(SECONDS / 2)
    assert not killer.is_alive()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_it_does_not_outlive_a_process_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
            process.kill()
            assert connection.recv(1) == b""  # closed by a server that stops
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), SECONDS).close()


def test_a_start_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIPSRV_QUALITY", "101")
    with pytest.raises(StartFailed, match=r"could not be started: .*--quality.*101"), EmbeddedServer():
        pass


def test_a_program_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(StartFailed, match="No such file"), EmbeddedServer():
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no program there")
def test_a_program_that_says_nothing_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 1000\n")
    silent.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(silent))
    monkeypatch.setattr("vipsrv.client.embedded.START_SECONDS", 0.2)
    with pytest.raises(StartFailed, match=r"printed nothing within 0\.2 s"), EmbeddedServer():
        pass
