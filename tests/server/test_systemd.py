"""What systemd is told and what it tells, with sockets that the test makes."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vipsrv.address import Address
from vipsrv.errors import Draining, StartFailed
from vipsrv.server import systemd
from vipsrv.server.systemd import Notifier, Watchdog, inherited_listeners


class Manager:
    """Stands for systemd: a datagram socket and what has arrived on it."""

    def __init__(self, name: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(name)
        self.socket.setblocking(False)

    def messages(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    path = str(tmp_path / "notify")
    manager = Manager(path)
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with manager.socket:
        yield manager


@pytest.fixture
def notifier(manager: Manager) -> Iterator[Notifier]:
    assert manager.messages() == []
    notifier = Notifier.from_environment()
    yield notifier
    notifier.close()


def test_the_life_of_a_service(manager: Manager, notifier: Notifier) -> None:
    notifier.ready("2 workers\nlistening")
    notifier.status("busy")
    notifier.alive()
    notifier.main_process(77)
    notifier.stopping()
    assert manager.messages() == [
        "READY=1\nSTATUS=2 workers listening",
        "STATUS=busy",
        "WATCHDOG=1",
        "MAINPID=77",
        "STOPPING=1\nSTATUS=finishing the requests in flight",
    ]
    assert "NOTIFY_SOCKET" not in os.environ


def test_a_reload_has_a_begin_with_its_time_and_an_end(manager: Manager, notifier: Notifier) -> None:
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    begin, stamp = manager.messages()[0].split("\n")
    assert begin == "RELOADING=1"
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    notifier.ready("not reloaded: line 3: workers is not a number")
    assert manager.messages() == ["READY=1\nSTATUS=not reloaded: line 3: workers is not a number"]


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets exist on Linux only")
def test_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = Manager(f"\0vipsrv-test-{os.getpid()}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@vipsrv-test-{os.getpid()}")
    notifier = Notifier.from_environment()
    with manager.socket:
        notifier.alive()
        assert manager.messages() == ["WATCHDOG=1"]
    notifier.close()


def test_without_systemd_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notifier = Notifier.from_environment()
    notifier.ready("nobody listens")
    notifier.close()
    assert notifier.watchdog_seconds is None


def test_a_manager_that_is_gone_is_logged_once(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "gone"))
    notifier.alive()
    notifier.alive()
    notifier.close()
    assert [record.getMessage() for record in caplog.records] == [
        "the service manager cannot be told WATCHDOG=1: No such file or directory"
    ]


def test_a_socket_of_another_machine_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier("vsock:2:1234")
    notifier.alive()
    assert "vsock:2:1234 is passed over" in caplog.text


@pytest.mark.parametrize(
    ("period", "pid", "seconds"),
    [
        ("30000000", "own", 30.0),
        ("30000000", "", 30.0),
        ("30000000", "1", None),
        ("0", "own", None),
        ("soon", "own", None),
        ("", "", None),
    ],
)
def test_the_period_of_the_watchdog(
    monkeypatch: pytest.MonkeyPatch, period: str, pid: str, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", period)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    notifier = Notifier.from_environment()
    assert notifier.watchdog_seconds == seconds
    assert "WATCHDOG_USEC" not in os.environ
    assert "WATCHDOG_PID" not in os.environ
    notifier.close()


def test_a_successor_takes_the_watchdog_of_the_process_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1500000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    notifier = Notifier.from_environment(successor=True)
    assert notifier.watchdog_seconds == 1.5
    notifier.close()


class Workers:
    ready = True

    def check(self) -> None:
        if not self.ready:
            raise Draining("no worker has been ready for 9 s")


def test_the_watchdog_hears_twice_a_period_from_a_server_that_works(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    notifier, workers = Notifier.from_environment(), Workers()
    watchdog = Watchdog(notifier, workers.check)
    for tenths in range(1000, 1200):  # 20 s
        watchdog.check(tenths / 10)
    assert manager.messages() == ["WATCHDOG=1"] * 4
    workers.ready = False
    for tenths in range(1200, 1400):
        watchdog.check(tenths / 10)
    assert manager.messages() == []
    assert caplog.text.count("no more signs of life: no worker has been ready") == 1
    workers.ready = True
    watchdog.check(140.0)
    assert manager.messages() == ["WATCHDOG=1"]
    notifier.close()


def test_a_loop_that_is_stuck_gives_no_sign_of_life(manager: Manager) -> None:
    """Only the event loop calls ``check``, and what it has missed is not made up for."""
    notifier = Notifier(manager.socket.getsockname(), watchdog_seconds=10)
    watchdog = Watchdog(notifier, Workers().check)
    watchdog.check(1000.0)
    assert manager.messages() == ["WATCHDOG=1"]
    watchdog.check(1060.0)  # after a minute in which it was stuck
    watchdog.check(1060.1)
    assert manager.messages() == ["WATCHDOG=1"]
    notifier.close()


def test_no_watchdog_no_signs_of_life(manager: Manager, notifier: Notifier) -> None:
    Watchdog(notifier, Workers().check).check(100.0)
    assert manager.messages() == []


# Socket activation


def activate(monkeypatch: pytest.MonkeyPatch, descriptor: int, names: str = "", pid: int = 0) -> None:
    """The variables for one socket, as if the first one was this ``descriptor``."""
    monkeypatch.setattr(systemd, "_FIRST_DESCRIPTOR", descriptor)
    monkeypatch.setenv("LISTEN_PID", str(pid or os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_FDNAMES", names)


@pytest.mark.parametrize("names", ["images", "tls", "images-tls", ""])
def test_an_inherited_tcp_listener(monkeypatch: pytest.MonkeyPatch, names: str) -> None:
    given = socket.create_server(("127.0.0.1", 0))
    port = given.getsockname()[1]
    os.set_inheritable(given.fileno(), True)
    activate(monkeypatch, given.detach(), names)
    (listener,) = inherited_listeners()
    with listener.sock:
        assert listener.address == Address("127.0.0.1", port, tls=names.endswith("tls"))
        assert not listener.owned
        assert not listener.sock.get_inheritable()
        assert not listener.sock.getblocking()
    assert not [name for name in os.environ if name.startswith("LISTEN_")]
    assert inherited_listeners() == []


def test_an_inherited_unix_listener(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = socket.socket(socket.AF_UNIX)
    given.bind(str(tmp_path / "socket"))
    given.listen()
    activate(monkeypatch, given.detach())
    (listener,) = inherited_listeners()
    with listener.sock:
        assert str(listener.address) == f"unix:{tmp_path / 'socket'}"


def test_sockets_for_another_process_are_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        activate(monkeypatch, given.fileno(), pid=1)
        assert inherited_listeners() == []
    assert "its sockets are for process 1, and this is process" in caplog.text
    assert "LISTEN_FDS" not in os.environ


@pytest.mark.parametrize("number", ["", "0", "-1", "two"])
def test_no_sockets(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", number)
    assert inherited_listeners() == []


@pytest.mark.parametrize("kind", ["file", "datagrams", "connected", "bound", "closed"])
def test_a_descriptor_that_is_no_listener(monkeypatch: pytest.MonkeyPatch, kind: str, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    datagrams = socket.socket(type=socket.SOCK_DGRAM)
    with ours, theirs, bound, datagrams, (tmp_path / "file").open("w") as file:
        descriptors = {
            "file": file.fileno(),
            "datagrams": datagrams.fileno(),
            "connected": ours.fileno(),
            "bound": bound.fileno(),
            "closed": 100_000,
        }
        descriptor = descriptors[kind]
        activate(monkeypatch, descriptor, "images")
        with pytest.raises(StartFailed, match=rf"^descriptor {descriptor} of LISTEN_FDS \(images\) is not a"):
            inherited_listeners()
