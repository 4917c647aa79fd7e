"""A reload of a real server: what it changes, what it refuses, and that it loses no request."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.support import bare_client
from tests.support.images import jpeg
from tests.support.running_server import RunningServer, wait_until, worker_pids
from tests.system.test_version2 import Connection
from vipsrv.client import Client
from vipsrv.errors import TooLarge
from vipsrv.protocol import Kind

SECONDS = 60


def reload(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``vipsrv reload``."""
    return subprocess.run(
        [sys.executable, "-m", "vipsrv", "reload", *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "vipsrv.toml"


def events(server: RunningServer, logger: str = "vipsrv.server.reload") -> list[tuple[str, str]]:
    """Level and text of what a part of the server has logged."""
    lines = map(json.loads, server.log.splitlines())
    return [(line["level"], line["event"]) for line in lines if line.get("logger") == logger]


class Started:
    """A server with a TOML file and a pid file."""

    def __init__(self, start_server: StartServer, config: Path) -> None:
        self.config = config
        self.pid_file = config.with_name("pid")
        self._always = f'workers = 1\npid_file = "{self.pid_file}"\n'
        self.write("")
        self.server = start_server("--config", str(config))

    def write(self, text: str) -> None:
        """Change the settings of the file to ``text``, which begins in its third line."""
        self.config.write_text(self._always + text)

    def reload(self) -> subprocess.CompletedProcess[str]:
        return reload("--config", str(self.config))


@pytest.fixture
def started(start_server: StartServer, config: Path) -> Started:
    return Started(start_server, config)


def test_open_connections_see_a_reload(started: Started) -> None:
    image = jpeg()
    with Client("127.0.0.1", started.server.port) as client:
        client.resize(image, width=20, height=10)
        started.write(f"max_upload = {len(image) - 1}\npin_workers = false")
        done = started.reload()
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            "the settings were reloaded",
            f'max_upload from "2GiB" to {len(image) - 1}',
            "these settings have changed and need a restart: pin_workers",
        ]
        with pytest.raises(TooLarge):
            client.resize(image, width=20, height=10)
    started.server.wait_for_log("need a restart")
    assert events(started.server) == [
        ("info", f'the settings were reloaded: max_upload from "2GiB" to {len(image) - 1}'),
        ("warning", "these settings have changed and need a restart: pin_workers"),
    ]


def test_workers_see_a_reload(started: Started) -> None:
    (worker,) = worker_pids(started.server.pid)
    with Client("127.0.0.1", started.server.port) as client:
        started.write("max_output_pixels = 100")
        assert started.reload().returncode == 0
        started.server.wait_for_log("all workers have the reloaded settings")
        with pytest.raises(TooLarge):
            client.resize(jpeg(), width=20, height=10)
    wait_until(lambda: worker not in worker_pids(started.server.pid), "end of the first worker")


def test_a_file_with_a_fault_changes_nothing(started: Started) -> None:
    started.write("queue = 7\nmax_uplaod = 1\ndeadline = 0\n")
    done = started.reload()
    assert done.returncode == 1
    faults = [
        f"{started.config}:4: max_uplaod: there is no such setting; did you mean max_upload?",
        f"{started.config}:5: deadline: Input should be greater than 0, not 0",
    ]
    assert done.stderr.splitlines() == [
        *(f"vipsrv: {fault}" for fault in faults),
        "vipsrv: the settings were not reloaded; those from before hold",
    ]
    started.server.wait_for_log("not reloaded")
    assert events(started.server) == [("error", f"the settings were not reloaded: {'; '.join(faults)}")]
    started.write("")
    assert "no value has changed" in started.reload().stdout


def test_the_text_of_a_secret_is_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret, pid_file = tmp_path / "secret", tmp_path / "pid"
    secret.write_text("1000")
    command = [sys.executable, "-m", "vipsrv", "serve", "--no-config", "--port", "0", "--workers", "1"]
    monkeypatch.setenv("VIPSRV_MAX_UPLOAD_FILE", str(secret))
    monkeypatch.setenv("VIPSRV_PID_FILE", str(pid_file))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rpartition(":")[2])
            secret.write_text("2000")
            done = reload("--no-config")
            assert done.stdout.splitlines()[1] == "max_upload from (secret) to (secret)", done.stderr
            with Client("127.0.0.1", port) as client:
                assert client.hello().limits.max_upload == 2000
            process.terminate()
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
    assert not pid_file.exists()


def test_the_log_follows_a_reload(started: Started, tmp_path: Path) -> None:
    target = tmp_path / "log"
    started.write(f'log_file = "{target}"\nlog_format = "console"')
    assert started.reload().returncode == 0
    changed = f'log_format from "auto" to "console", log_file from none to "{target}"'
    wait_until(lambda: target.exists() and changed in target.read_text(), "line in the new file")
    started.write(f'log_file = "{tmp_path}/none/log"')
    done = started.reload()
    assert done.returncode == 1
    assert f"{tmp_path}/none/log" in done.stderr


def test_the_files_beside_a_server_go_with_it(started: Started) -> None:
    folder = started.config.parent
    assert started.pid_file.read_text() == f"{started.server.pid}\n"
    assert started.server.stop() == 0
    assert list(folder.iterdir()) == [started.config]
    done = started.reload()
    assert (done.returncode, done.stderr) == (
        1,
        f"vipsrv: no server runs with the pid file {started.pid_file}\n",
    )


def test_a_second_server_does_not_take_the_pid_file(started: Started) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "vipsrv", "serve", "--config", str(started.config), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (second.returncode, second.stdout) == (1, "")
    assert f"another server runs with {started.pid_file} (process {started.server.pid})" in second.stderr
    assert started.reload().returncode == 0


def test_a_reload_during_the_start_is_done_afterwards(config: Path, tmp_path: Path) -> None:
    """The signal does not end a server that has just written its pid file."""
    pid_file = tmp_path / "pid"
    config.write_text(f'port = 0\nworkers = 1\npid_file = "{pid_file}"\n')
    command = [sys.executable, "-m", "vipsrv", "serve", "--config", str(config)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: pid_file.exists() and pid_file.read_text() != "", "pid file")
            done = reload("--config", str(config))
            assert (done.returncode, done.stderr) == (0, "")
            process.terminate()
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


def test_a_server_that_is_stopping_refuses_a_reload(started: Started) -> None:
    image = jpeg()
    with bare_client.connect(started.server.port) as sock:
        sock.sendall(bare_client.header(len(image), 20, 10) + image[:-1])
        assert bare_client.ask(started.server.port, image, 20, 10).size > 0  # accepted after the other one
        started.server.process.send_signal(signal.SIGTERM)
        started.server.wait_for_log("stopping")
        done = started.reload()
        assert done.returncode == 1
        assert done.stderr.splitlines()[0] == "vipsrv: the server is stopping"
        sock.sendall(image[-1:])
        assert bare_client.read_answer(sock).size > 0
    assert started.server.process.wait(SECONDS) == 0


def open_files(server: RunningServer) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def test_a_reload_that_a_part_refuses_leaves_no_file_open(started: Started, tmp_path: Path) -> None:
    """The log opens its file before the gateway refuses."""
    log = tmp_path / "log"
    started.write("connections = 100")
    assert started.reload().returncode == 0
    before = open_files(started.server)
    for _ in range(5):
        started.write(f'log_file = "{log}"\ntokens = "{tmp_path / "none"}"\nqueue = 7')
        done = started.reload()
        assert done.returncode == 1
        assert "tokens" in done.stderr
    assert log.exists()
    assert open_files(started.server) == before
    started.write("connections = 100")
    assert "no value has changed" in started.reload().stdout


def test_a_reload_needs_a_pid_file() -> None:
    done = reload("--no-config")
    assert done.returncode == 2
    assert "--pid-file" in done.stderr


CLIENTS = 8
RELOADS = 6


def test_reloads_under_load_lose_no_request(config: Path, tmp_path: Path) -> None:
    """Eight connections send requests without a pause until all reloads have reached all workers."""
    pid_file = tmp_path / "pid"
    config.write_text(f'workers = 2\npid_file = "{pid_file}"\n')
    image = jpeg()
    over = threading.Event()
    failures: list[BaseException] = []
    served = [0] * CLIENTS

    def send(number: int, port: int) -> None:
        try:
            with bare_client.connect(port) as sock:
                connection = Connection(sock)  # which never reconnects
                while not over.is_set():
                    assert connection.call(Kind.RESIZE, {"width": 20, "height": 10}, image).status == 200
                    served[number] += 1
        except BaseException as error:  # noqa: BLE001 - of any kind: it is the result of the test
            failures.append(error)

    with RunningServer("--config", str(config), new_session=True) as server:
        threads = [threading.Thread(target=send, args=(number, server.port)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            before = set(worker_pids(server.pid))
            for number in range(1, RELOADS + 1):
                config.write_text(
                    f'workers = 2\npid_file = "{pid_file}"\nquality = {number}\nqueue = {1000 + number}\n'
                )
                server.process.send_signal(signal.SIGHUP)
                server.wait_for_log(f"quality from {85 if number == 1 else number - 1} to {number}, queue")
                wait_for_each(served, failures)
            all_reloaded = "all workers have the reloaded settings"
            wait_until(lambda: bool(failures) or all_reloaded in server.log, all_reloaded)
            wait_until(lambda: not before & set(worker_pids(server.pid)), "end of the first workers")
        finally:
            over.set()
            for thread in threads:
                thread.join(SECONDS)
        assert failures == []
        logged = events(server) + events(server, "vipsrv.workers.pool")
        assert len(logged) > RELOADS
        assert {level for level, _ in logged} == {"info"}
        assert server.stop() == 0


def wait_for_each(served: list[int], failures: list[BaseException]) -> None:
    """Wait until each client has been served once more, or one has failed."""
    before = list(served)
    wait_until(
        lambda: bool(failures) or all(now > then for now, then in zip(served, before, strict=True)),
        "request of each client",
    )


def test_a_server_with_a_terminal_is_reloaded_by_the_command(config: Path, tmp_path: Path) -> None:
    """SIGHUP would stop it."""
    pid_file = tmp_path / "pid"
    config.write_text(f'port = 0\nworkers = 1\npid_file = "{pid_file}"\n')
    ours, terminal = os.openpty()
    become_leader = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    run = "os.execv(sys.executable, [sys.executable, '-m', 'vipsrv', *sys.argv[1:]])"
    command = [sys.executable, "-c", f"{become_leader}; {run}", "serve", "--config", str(config)]
    with subprocess.Popen(command, stdin=terminal, stdout=subprocess.PIPE, text=True) as process:
        os.close(terminal)
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rpartition(":")[2])
            with config.open("a") as file:
                file.write("max_upload = 2000\n")
            assert reload("--config", str(config)).returncode == 0
            with Client("127.0.0.1", port) as client:
                assert client.hello().limits.max_upload == 2000
            process.terminate()
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
            os.close(ours)
