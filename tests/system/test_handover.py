"""One server takes the place of another: real processes, and clients at work."""

import json
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.support import bare_client
from tests.support.images import jpeg
from tests.support.running_server import RunningServer, serve, wait_until
from tests.support.traffic import Traffic

IMAGE = jpeg()


@pytest.fixture
def control(tmp_path: Path) -> Path:
    return tmp_path / "control"


def arguments(control: Path, *more: str) -> list[str]:
    return ["--workers", "1", "--control", str(control), *more]


def test_no_request_is_lost_while_servers_take_over_from_each_other(
    start_server: StartServer, control: Path
) -> None:
    listen = ("--listen", "127.0.0.1:0", "--listen", "http://127.0.0.1:0")
    first = running = start_server(*arguments(control), *listen)
    http_port = int(first.listeners[1].rpartition(":")[2])
    with Traffic(first.port, connections=4, http_port=http_port) as traffic:
        for _ in range(3):
            traffic.wait_for_more(20)
            successor = start_server(*arguments(control, "--takeover"), *listen)
            assert successor.listeners == first.listeners
            assert running.process.wait(bare_client.SECONDS) == 0
            running = successor
        traffic.wait_for_more(20)
    assert traffic.errors == []
    assert running.stop() == 0
    assert not control.exists()


def test_unix_sockets_and_their_files_go_to_the_successor(
    start_server: StartServer, control: Path, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    listen = ("--listen", f"unix:{path}", "--listen", "127.0.0.1:0")
    first = start_server(*arguments(control, *listen))
    # The successor's own --listen is passed over.
    second = start_server(
        *arguments(control, "--listen", "127.0.0.1:1", "--listen", "127.0.0.1:2", "--takeover")
    )
    assert second.listeners == first.listeners
    assert "--listen: passed over" in second.log
    assert first.process.wait(bare_client.SECONDS) == 0
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(bare_client.SECONDS)
        sock.connect(str(path))
        sock.sendall(bare_client.header(len(IMAGE), 20, 10) + IMAGE)
        assert bare_client.read_answer(sock).size > 0
    assert second.stop() == 0
    assert not path.exists()
    assert not control.exists()


def test_inherited_files_stay_through_a_hand_over(control: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        with (
            RunningServer(*arguments(control), sockets=[unix]) as first,
            RunningServer(*arguments(control, "--takeover")) as second,
        ):
            assert first.process.wait(bare_client.SECONDS) == 0
            assert second.stop() == 0
    assert path.exists()


def test_the_request_in_flight_is_finished_by_the_old_server(
    start_server: StartServer, control: Path
) -> None:
    first = start_server(*arguments(control, "--receive-timeout", "600", "--drain", "600"))
    with bare_client.connect(first.port) as sock:
        sock.sendall(bare_client.header(len(IMAGE), 20, 10) + IMAGE[:-1])
        assert bare_client.ask(first.port, IMAGE, 20, 10).size > 0  # accepted after the other one
        start_server(*arguments(control, "--takeover"))
        first.wait_for_log("has taken over the listeners")
        first.process.send_signal(signal.SIGTERM)  # the first one, so that it is no stop at once
        assert first.process.poll() is None
        sock.sendall(IMAGE[-1:])
        assert bare_client.read_answer(sock).size > 0
    assert first.process.wait(bare_client.SECONDS) == 0


def test_a_successor_that_cannot_start_changes_nothing(
    start_server: StartServer, control: Path, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    first = start_server(*arguments(control, "--listen", "127.0.0.1:0", "--listen", f"unix:{path}"))
    # A pyvips that cannot be imported stands in front of the real one.
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "pyvips.py").write_text("raise ImportError('libvips is not to be found')")
    with Traffic(first.port, connections=2) as traffic:
        failed = serve(*arguments(control, "--takeover"), PYTHONPATH=str(broken))
        traffic.wait_for_more(10)
    assert failed.returncode == 1
    assert "libvips is not to be found" in failed.stderr
    assert traffic.errors == []
    first.wait_for_log("did not take over, this server goes on")
    assert path.exists()
    # The next one can.
    start_server(*arguments(control, "--takeover"))
    assert first.process.wait(bare_client.SECONDS) == 0


def test_without_a_running_server_a_takeover_is_a_normal_start(
    start_server: StartServer, control: Path
) -> None:
    server = start_server(*arguments(control, "--takeover"))
    assert "there is none to take over" in server.log
    assert control.stat().st_mode & 0o777 == 0o600
    assert bare_client.ask(server.port, IMAGE, 20, 10).size > 0


def test_a_server_that_was_killed_leaves_a_socket_that_does_not_matter(
    start_server: StartServer, control: Path
) -> None:
    first = start_server(*arguments(control))
    first.process.kill()
    first.process.wait()
    assert control.exists()
    start_server(*arguments(control, "--takeover"))


def test_a_second_server_without_takeover_is_refused(start_server: StartServer, control: Path) -> None:
    start_server(*arguments(control))
    second = serve(*arguments(control, "--port", "0"))
    assert second.returncode == 1
    assert f"cannot listen on unix:{control}: Address already in use" in second.stderr


def test_a_takeover_without_a_control_socket_is_refused() -> None:
    refused = serve("--takeover")
    assert refused.returncode == 1
    assert "--takeover needs --control" in refused.stderr


def test_a_server_of_another_format_is_left_alone(start_server: StartServer, control: Path) -> None:
    server = start_server(*arguments(control))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(bare_client.SECONDS)
        sock.connect(str(control))
        sock.sendall(b'{"kind": "take", "format": 99}\n')
        reply = json.loads(bare_client.read_to_end(sock))
    assert reply == {"kind": "error", "format": 1, "message": "its hand-over has format 99, and this one 1"}
    assert bare_client.ask(server.port, IMAGE, 20, 10).size > 0


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_ends_during_the_hand_over_leaves_its_sockets_to_the_successor(
    start_server: StartServer, control: Path, tmp_path: Path, end: signal.Signals
) -> None:
    path = tmp_path / "socket"
    first = start_server(*arguments(control, "--listen", f"unix:{path}"))
    with socket.socket(socket.AF_UNIX) as successor:  # the test itself
        successor.settimeout(bare_client.SECONDS)
        successor.connect(str(control))
        successor.sendall(b'{"kind": "take", "format": 1}\n')
        message, descriptors, _, _ = socket.recv_fds(successor, 4096, 10)
        offer = json.loads(message)
        assert offer["listeners"] == [{"tls": False, "wire": "binary", "owned": True}]
        first.process.send_signal(end)
        first.process.wait(bare_client.SECONDS)
        assert successor.recv(1) == b""
    taken, kept = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    with taken, kept, socket.socket(socket.AF_UNIX) as client:
        assert kept.getsockname() == str(control)
        client.connect(str(path))
        accepted, _ = taken.accept()
        with accepted:
            client.sendall(b"x")
            assert accepted.recv(1) == b"x"


def test_a_tls_listener_of_systemd_stays_one_through_a_hand_over(control: Path, tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    subprocess.run(
        [sys.executable, "-m", "vipsrv", "cert", "self-signed", str(folder)], check=True, timeout=60
    )
    tls = ("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"))
    context = ssl.create_default_context(cafile=folder / "ca.pem")

    def ask(server: RunningServer) -> bare_client.Answer:
        assert server.listeners[0] == f"tls://127.0.0.1:{port}"
        with context.wrap_socket(bare_client.connect(port), server_hostname="127.0.0.1") as sock:
            sock.sendall(bare_client.header(len(IMAGE), 20, 10) + IMAGE)
            return bare_client.read_answer(sock)

    with socket.create_server(("127.0.0.1", 0)) as tcp:
        port = tcp.getsockname()[1]
        named = {"LISTEN_FDNAMES": "images-tls"}
        with RunningServer(*arguments(control, *tls), environment=named, sockets=[tcp]) as first:
            assert ask(first).size > 0
            with RunningServer(*arguments(control, *tls, "--takeover")) as second:
                assert first.process.wait(bare_client.SECONDS) == 0
                assert ask(second).size > 0


def test_a_successor_without_a_certificate_for_a_tls_listener_changes_nothing(
    start_server: StartServer, control: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "certificates"
    subprocess.run(
        [sys.executable, "-m", "vipsrv", "cert", "self-signed", str(folder)], check=True, timeout=60
    )
    tls = ("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"))
    first = start_server(*arguments(control, *tls, "--listen", "tls://127.0.0.1:0"))
    failed = serve(*arguments(control, "--takeover"))
    assert failed.returncode == 1
    assert "--tls-cert" in failed.stderr
    first.wait_for_log("did not take over, this server goes on")
    assert first.process.poll() is None


# The pid file


def reload(pid_file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vipsrv", "reload", "--no-config", "--pid-file", str(pid_file)],
        capture_output=True,
        text=True,
        timeout=bare_client.SECONDS,
        check=False,
    )


RELOADED = "the settings were reloaded\nno value has changed\n"


def test_a_reload_after_a_hand_over_reaches_the_successor(
    start_server: StartServer, control: Path, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    always = arguments(control, "--pid-file", str(pid_file), "--drain", "600")
    first = start_server(*always)
    with bare_client.connect(first.port) as sock:  # the first one does not end meanwhile
        sock.sendall(bare_client.header(len(IMAGE), 20, 10) + IMAGE[:-1])
        assert bare_client.ask(first.port, IMAGE, 20, 10).size > 0  # accepted after the other one
        second = start_server(*always, "--takeover")
        first.wait_for_log("stopping")
        second.wait_for_log("started")
        wait_until(lambda: pid_file.read_text() == f"{second.pid}\n", "pid file of the second server")
        assert reload(pid_file).stdout == RELOADED
        second.wait_for_log("the settings were reloaded")
        assert "reloaded" not in first.log
        sock.sendall(IMAGE[-1:])
        assert bare_client.read_answer(sock).size > 0
    assert first.process.wait(bare_client.SECONDS) == 0
    assert reload(pid_file).stdout == RELOADED
    assert second.stop() == 0
    assert list(tmp_path.iterdir()) == []


def test_after_a_hand_over_that_failed_a_reload_reaches_the_first_server(
    start_server: StartServer, control: Path, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    always = arguments(control, "--pid-file", str(pid_file))
    first = start_server(*always)
    failed = serve(*always, "--takeover", "--spool-dir", str(tmp_path / "none"))
    assert failed.returncode == 1
    assert "the spool folder" in failed.stderr
    assert pid_file.read_text() == f"{first.pid}\n"
    assert reload(pid_file).stdout == RELOADED
    assert first.stop() == 0
    assert list(tmp_path.iterdir()) == []


def test_the_pid_file_of_a_server_that_does_not_hand_over_is_not_replaced(
    start_server: StartServer, control: Path, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    first = start_server("--workers", "1", "--pid-file", str(pid_file))  # without --control
    second = serve(*arguments(control, "--port", "0", "--pid-file", str(pid_file), "--takeover"))
    assert (second.returncode, second.stdout) == (1, "")
    assert f"another server runs with {pid_file}, and this one does not replace it" in second.stderr
    assert reload(pid_file).stdout == RELOADED
    assert first.stop() == 0
    assert list(tmp_path.iterdir()) == []
