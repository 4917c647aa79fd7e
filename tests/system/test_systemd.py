"""A server under a service manager that the test stands for: notifications, sockets, restarts."""

import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import bare_client
from tests.support.images import jpeg
from tests.support.running_server import RunningServer, worker_pids
from tests.support.traffic import Traffic

IMAGE = jpeg()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(bare_client.SECONDS)
        yield manager


def notified(manager: socket.socket, begin: str) -> str:
    """The first message to the manager that begins with this."""
    while True:
        message = manager.recv(4096).decode()
        if message.startswith(begin):
            return message


def test_a_server_tells_when_it_is_ready_alive_and_stopping(manager: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "200000"}
    with RunningServer("--workers", "1", environment=environment) as server:
        ready = notified(manager, "READY=1")
        assert ready == f"READY=1\nSTATUS=1 workers, listening on {server.listeners[0]}"
        notified(manager, "WATCHDOG=1")
        (worker,) = worker_pids(server.pid)
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{worker}/environ").read_bytes()
        assert server.stop() == 0
    notified(manager, "STOPPING=1")


def test_a_reload_is_told_with_its_outcome(manager: socket.socket, tmp_path: Path) -> None:
    config = tmp_path / "vipsrv.toml"
    config.write_text("workers = 1\n")
    environment = {"NOTIFY_SOCKET": manager.getsockname()}
    with RunningServer("--config", str(config), new_session=True, environment=environment) as server:
        assert notified(manager, "").startswith("READY=1")
        for text, outcome in (
            ("queue = 7", "taken over"),
            ("queue = -7", f"refused: {config}:2: queue: Input should be greater than or equal to 0, not -7"),
        ):
            config.write_text(f"workers = 1\n{text}\n")
            server.process.send_signal(signal.SIGHUP)
            assert notified(manager, "").startswith("RELOADING=1\nMONOTONIC_USEC=")
            assert notified(manager, "") == f"READY=1\nSTATUS=serving; the last reload was {outcome}"
        assert server.stop() == 0
    assert notified(manager, "").startswith("STOPPING=1")


def test_a_successor_becomes_the_main_process(manager: socket.socket, tmp_path: Path) -> None:
    environment = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"}
    arguments = ("--workers", "1", "--control", str(tmp_path / "control"))
    with RunningServer(*arguments, environment=environment) as first:
        assert notified(manager, "").startswith("READY=1")
        with RunningServer(*arguments, "--takeover", environment=environment) as second:
            assert first.process.wait(bare_client.SECONDS) == 0
            assert notified(manager, "MAINPID") == f"MAINPID={second.pid}"
            assert notified(manager, "").startswith("READY=1")
            assert notified(manager, "") == "WATCHDOG=1"  # not STOPPING=1 of the first
            assert second.stop() == 0


def ask_unix(path: Path) -> bare_client.Answer:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(bare_client.SECONDS)
        sock.connect(str(path))
        sock.sendall(bare_client.header(len(IMAGE), 20, 10) + IMAGE)
        return bare_client.read_answer(sock)


def test_inherited_listeners_are_used_instead_of_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.create_server(("127.0.0.1", 0)) as tcp, closing(socket.socket(socket.AF_UNIX)) as unix:
        unix.bind(str(path))
        unix.listen()
        port = tcp.getsockname()[1]
        arguments = ("--workers", "1", "--listen", "127.0.0.1:1")
        with RunningServer(*arguments, sockets=[tcp, unix]) as server:
            assert server.listeners == [f"127.0.0.1:{port}", f"unix:{path}"]
            assert bare_client.ask(port, IMAGE, 20, 10).size > 0
            assert ask_unix(path).size > 0
            assert "--listen: passed over" in server.log
            (worker,) = worker_pids(server.pid)
            assert b"LISTEN_" not in Path(f"/proc/{worker}/environ").read_bytes()
            assert server.stop() == 0
    assert path.exists()


def test_a_restart_with_inherited_listeners_loses_no_request() -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=4096) as images,
        socket.create_server(("127.0.0.1", 0), backlog=4096) as web,
    ):
        ports = [sock.getsockname()[1] for sock in (images, web)]

        def start() -> RunningServer:
            named = {"LISTEN_FDNAMES": "images:http"}
            return RunningServer("--workers", "1", sockets=[images, web], environment=named)

        with Traffic(ports[0], connections=4, http_port=ports[1]) as traffic:
            for _ in range(3):
                with start() as server:
                    traffic.wait_for_more(20)
                    assert server.stop() == 0
            with start():
                traffic.wait_for_more(20)
                traffic.end()
        assert traffic.errors == []


def test_a_connection_that_was_accepted_before_the_stop_is_served() -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        port = tcp.getsockname()[1]
        with RunningServer("--workers", "1", sockets=[tcp]) as server, bare_client.connect(port) as sock:
            assert bare_client.ask(port, IMAGE, 20, 10).size > 0  # accepted after the other one
            server.process.send_signal(signal.SIGTERM)
            server.wait_for_log("stopping")
            sock.sendall(bare_client.header(len(IMAGE), 20, 10) + IMAGE)
            assert bare_client.read_answer(sock).size > 0
            assert server.process.wait(bare_client.SECONDS) == 0


def test_a_descriptor_that_is_no_listener_fails_the_start() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        with pytest.raises(AssertionError, match=r"descriptor 3 of LISTEN_FDS .* is not a stream socket"):
            RunningServer("--workers", "1", sockets=[datagrams])
