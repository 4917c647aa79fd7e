"""``vipsrv health``: against real servers, what is no server, and what is another one."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.cli.test_config import vipsrv
from tests.conftest import StartServer
from tests.support.running_server import RunningServer, worker_pids

ALIVE, NOT_READY, USAGE, NO_SERVER, TIMEOUT = 0, 1, 2, 3, 5


def health(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return vipsrv("health", "--no-config", *arguments, folder=None, **settings)


@pytest.fixture
def operated(start_server: StartServer) -> RunningServer:
    """A server with an ops listener."""
    return start_server("--workers", "1", "--ops-listen", "127.0.0.1:0")


@contextmanager
def closed_port() -> Iterator[str]:
    """An address at which nobody listens: it is bound, so nobody else gets it."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{closed.getsockname()[1]}"


def test_a_ready_server(operated: RunningServer) -> None:
    where = operated.ops.removeprefix("http://")
    ended = health("--address", where)
    assert (ended.returncode, ended.stdout, ended.stderr) == (ALIVE, "alive\n", "")
    ended = health("--ready", "--verbose", VIPSRV_OPS_LISTEN=where)
    lines = ended.stdout.splitlines()
    assert ended.returncode == ALIVE
    assert [line.partition(":")[0] for line in lines] == ["[+] serving", "[+] workers", "[+] canary", "ready"]


def test_the_address_may_have_the_form_of_a_browser(operated: RunningServer) -> None:
    assert health("--ready", "--address", f"{operated.ops}/").returncode == ALIVE


def test_a_server_that_is_not_ready(operated: RunningServer) -> None:
    (pid,) = worker_pids(operated.pid)
    os.kill(pid, signal.SIGSTOP)
    try:
        ended = health("--ready", "--address", operated.ops)
        assert ended.returncode == NOT_READY
        assert f"not ready: worker {pid} has had the canary image for" in ended.stdout
        assert health("--address", operated.ops).returncode == ALIVE
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_server_that_does_not_answer_in_time(operated: RunningServer) -> None:
    os.kill(operated.pid, signal.SIGSTOP)
    try:
        ended = health("--timeout", "0.5", "--address", operated.ops)
    finally:
        os.kill(operated.pid, signal.SIGCONT)
    assert ended.returncode == TIMEOUT
    assert "did not answer within 0.5 s" in ended.stderr


def test_a_unix_socket(start_server: StartServer, tmp_path: Path) -> None:
    where = f"unix:{tmp_path}/ops"
    start_server("--workers", "1", "--ops-listen", where)
    assert health("--ready", VIPSRV_OPS_LISTEN=where).stdout == "ready\n"
    ended = health("--address", f"{where}-other")
    assert ended.returncode == NO_SERVER
    assert f"{where}-other cannot be reached" in ended.stderr


def test_no_server() -> None:
    with closed_port() as where:
        ended = health("--address", where)
    assert ended.returncode == NO_SERVER
    assert f"http://{where} cannot be reached: Connection refused" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"alive": true, "ready": 1}', b"[]"])
def test_another_program_at_the_address(body: bytes) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        where = f"127.0.0.1:{other.server_port}"
        ended = health("--ready", "--address", where)
        other.shutdown()
    assert ended.returncode == NO_SERVER
    assert f"what answers at http://{where} is not vipsrv" in ended.stderr


# Without an ops listener.


def test_a_server_without_the_listener_is_pinged(server: RunningServer) -> None:
    settings = {"VIPSRV_PORT": str(server.port), "VIPSRV_OPS_LISTEN": "off"}
    assert health(**settings).stdout == "alive\n"
    ended = health("--ready", **settings)
    assert ended.returncode == ALIVE
    assert f"ready: 127.0.0.1:{server.port} has workers" in ended.stdout


def test_no_server_to_ping() -> None:
    with closed_port() as where:
        port = where.rpartition(":")[2]
        ended = health(VIPSRV_PORT=port, VIPSRV_OPS_LISTEN="off")
    assert ended.returncode == NO_SERVER
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["--address", "9464"], {}),
        (["--address", "tls://127.0.0.1:9464"], {}),
        (["--timeout", "0"], {}),
        ([], {"VIPSRV_OPS_LISTEN": "nonsense"}),
    ],
)
def test_an_invalid_command_line(arguments: list[str], settings: dict[str, str]) -> None:
    ended = health(*arguments, **settings)
    assert ended.returncode == USAGE
    assert ended.stderr
    assert "Traceback" not in ended.stderr
