"""Start, listeners, drain and stop of a real server process."""

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.support import bare_client
from tests.support.image_comparison import open_exact
from tests.support.images import jpeg, large_strip_tiff
from tests.support.running_server import RunningServer, serve, wait_until_busy, worker_pids


def test_several_listeners(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start_server("--workers", "1", "--listen", "127.0.0.1:0", "--listen", f"unix:{path}")
    assert server.listeners[1] == f"unix:{path}"
    image = jpeg()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(bare_client.SECONDS)
        sock.connect(str(path))
        sock.sendall(bare_client.header(len(image), 20, 10) + image)
        assert open_exact(bare_client.read_answer(sock).result).size == (20, 10)
    assert bare_client.ask(server.port, image, 20, 10).size > 0
    assert server.stop() == 0
    assert not path.exists()


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    start_server("--workers", "1", "--listen", f"unix:{path}")
    second = serve("--workers", "1", "--listen", f"unix:{path}")
    assert second.returncode == 1
    assert "cannot listen" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_socket_whose_listener_is_busy_is_a_live_one(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(path))
        listener.listen(0)
        waiting.connect(str(path))  # nobody accepts it, so that the next one would have to wait
        ended = serve("--workers", "1", "--listen", f"unix:{path}")
    assert ended.returncode == 1
    assert f"cannot listen on unix:{path}: Address already in use" in ended.stderr
    assert path.exists()


def test_a_port_that_is_taken(server: RunningServer) -> None:
    second = serve("--workers", "1", "--port", str(server.port))
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{server.port}" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("name", ["a..b", "none.invalid"])
def test_an_invalid_host_name(name: str) -> None:
    ended = serve("--workers", "1", "--host", name, "--port", "0")
    assert ended.returncode == 1
    assert f"cannot listen on {name}:0" in ended.stderr
    assert "Unknown error" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_settings_come_from_the_environment_too() -> None:
    ended = serve("--port", "0", VIPSRV_WORKERS="0")
    assert ended.returncode == 2
    assert "VIPSRV_WORKERS: " in ended.stderr


def test_a_spool_folder_that_does_not_exist() -> None:
    ended = serve("--port", "0", "--spool-dir", "/nowhere")
    assert ended.returncode == 1
    assert "/nowhere" in ended.stderr


def test_a_worker_that_cannot_start_fails_the_start_with_its_reason(tmp_path: Path) -> None:
    # A pyvips that cannot be imported stands in front of the real one.
    (tmp_path / "pyvips.py").write_text("raise ImportError('libvips is not to be found')")
    ended = serve("--port", "0", "--workers", "2", PYTHONPATH=str(tmp_path))
    assert ended.returncode == 1
    assert "libvips is not to be found" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_an_idle_server(start_server: StartServer, number: signal.Signals) -> None:
    server = start_server("--workers", "2")
    pids = worker_pids(server.pid)
    server.process.send_signal(number)
    assert server.process.wait(bare_client.SECONDS) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def listening_port(process: "subprocess.Popen[str]") -> int:
    """The port that a server prints when it is ready."""
    assert process.stdout is not None
    return int(process.stdout.readline().rpartition(":")[2])


def test_a_hangup_without_a_terminal_reloads() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "vipsrv", "serve", "--no-config", "--port", "0", "--workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # without the terminal that the tests may have
    ) as process:
        port = listening_port(process)
        for pid in [process.pid, *worker_pids(process.pid)]:
            os.kill(pid, signal.SIGHUP)
        assert bare_client.ask(port, jpeg(), 20, 10).size > 0
        process.send_signal(signal.SIGTERM)
        log = process.communicate(timeout=bare_client.SECONDS)[1]
    assert process.returncode == 0
    assert "the settings were reloaded: no value has changed" in log
    assert "ended" not in log  # no worker


def test_a_terminal_that_closes_drains(tmp_path: Path) -> None:
    ours, terminal = os.openpty()
    log = tmp_path / "log"
    # The leader of a session gets SIGHUP when its controlling terminal closes.
    become_leader = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    run = "os.execv(sys.executable, [sys.executable, '-m', 'vipsrv', *sys.argv[1:]])"
    arguments = ["serve", "--port", "0", "--workers", "1", "--max-output-pixels", "1000000000"]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", f"{become_leader}; {run}", *arguments],
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        os.close(terminal)
        try:
            port = listening_port(process)
            image = jpeg()
            with bare_client.connect(port) as sock:
                sock.sendall(bare_client.header(len(image), 5000, 5000) + image)
                wait_until_busy(process.pid)
                os.close(ours)
                assert open_exact(bare_client.read_answer(sock).result).size == (5000, 5000)
            assert process.wait(bare_client.SECONDS) == 0
        finally:
            process.kill()
    assert "stopping" in log.read_text()


def test_nohup_keeps_a_hangup_ignored() -> None:
    command = "trap '' HUP; exec \"$0\" -m vipsrv serve --port 0 --workers 1"
    with subprocess.Popen(
        ["/bin/sh", "-c", command, sys.executable],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        port = listening_port(process)
        process.send_signal(signal.SIGHUP)
        assert bare_client.ask(port, jpeg(), 20, 10).size > 0
        process.send_signal(signal.SIGTERM)
        log = process.communicate(timeout=bare_client.SECONDS)[1]
    assert process.returncode == 0
    assert "SIGHUP" not in log


def test_a_socket_that_another_server_put_in_its_place_is_kept(
    start_server: StartServer, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    first = start_server("--workers", "1", "--listen", f"unix:{path}")
    path.unlink()
    start_server("--workers", "1", "--listen", f"unix:{path}")
    assert first.stop() == 0
    image = jpeg()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(bare_client.SECONDS)
        sock.connect(str(path))
        sock.sendall(bare_client.header(len(image), 20, 10) + image)
        assert bare_client.read_answer(sock).size > 0


def test_a_drain_finishes_what_is_in_flight_and_accepts_nothing_new(start_server: StartServer) -> None:
    server = start_server("--workers", "1")
    image = jpeg()
    with bare_client.connect(server.port) as sock:
        sock.sendall(bare_client.header(len(image), 5000, 5000) + image)
        server.wait_until_busy()
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("stopping")
        with pytest.raises(ConnectionRefusedError):
            bare_client.connect(server.port)
        assert open_exact(bare_client.read_answer(sock).result).size == (5000, 5000)
    assert server.process.wait(bare_client.SECONDS) == 0


def test_a_drain_ends_after_its_time_limit(start_server: StartServer) -> None:
    server = start_server("--workers", "1", "--drain", "0.2", "--max-output-pixels", "1000000000")
    image = jpeg()
    with bare_client.connect(server.port) as sock:
        sock.sendall(bare_client.header(len(image), 30_000, 30_000) + image)
        server.wait_until_busy()
        server.process.send_signal(signal.SIGTERM)
        assert bare_client.read_answer(sock).error["status"] == 503
    assert server.process.wait(bare_client.SECONDS) == 0


def test_a_second_signal_stops_at_once(start_server: StartServer) -> None:
    server = start_server("--workers", "1", "--max-output-pixels", "1000000000")
    image = jpeg()
    with bare_client.connect(server.port) as sock:
        sock.sendall(bare_client.header(len(image), 30_000, 30_000) + image)
        server.wait_until_busy()
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("stopping")
        server.process.send_signal(signal.SIGTERM)
        assert bare_client.read_answer(sock).error["status"] == 503
    assert server.process.wait(bare_client.SECONDS) == 0


def test_a_server_stops_when_its_standard_input_ends() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "vipsrv", "serve", "--port", "0", "--workers", "1", "--until-stdin-closes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"vipsrv listening on 127.0.0.1:")
        process.stdin.close()
        assert process.wait(bare_client.SECONDS) == 0


def test_a_large_image_is_not_held_in_memory(start_server: StartServer, tmp_path: Path) -> None:
    """An image of 300 MB uncompressed makes the processes grow by a fraction of that."""
    server = start_server("--workers", "1", "--spool-dir", str(tmp_path))
    bare_client.ask(server.port, jpeg())
    image = tmp_path / "large.tif"
    large_strip_tiff(image, 10_000, 10_000)
    pids = [server.pid, *worker_pids(server.pid)]
    before = peak = anonymous_memory(pids)
    with bare_client.connect(server.port) as sock, image.open("rb") as file:
        sock.sendall(bare_client.header(image.stat().st_size))
        sock.sendfile(file)
        # What is mapped from the spool's file counts for nothing, so the kernel's own peaks do not tell.
        while not select.select([sock], [], [], 0.005)[0]:
            peak = max(peak, anonymous_memory(pids))
        assert open_exact(bare_client.read_answer(sock).result).size == (800, 600)
    assert before < max(peak, anonymous_memory(pids)) < before + 120_000_000
    assert worker_pids(server.pid) == pids[1:]


def anonymous_memory(pids: list[int]) -> int:
    """Bytes of memory that these processes hold now and that no file is behind (/proc/PID/status)."""
    total = 0
    for pid in pids:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        total += sum(int(status[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem"))
    return total


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core only")
def test_each_worker_is_pinned_to_a_core_unless_disabled(start_server: StartServer) -> None:
    def cores(*arguments: str) -> list[set[int]]:
        server = start_server("--workers", "2", *arguments)
        bare_client.ask(server.port, jpeg())
        threads = (
            thread for pid in worker_pids(server.pid) for thread in Path(f"/proc/{pid}/task").iterdir()
        )
        return [os.sched_getaffinity(int(thread.name)) for thread in threads]

    kept = cores()
    assert all(len(one) == 1 for one in kept)
    assert len(set().union(*kept)) == 2
    assert all(one == os.sched_getaffinity(0) for one in cores("--no-pin-workers"))
