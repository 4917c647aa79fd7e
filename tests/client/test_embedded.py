"""An embedded server: it ends with the client or process that started it."""

import gc
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.client.fake_server import SECONDS
from tests.support.images import jpeg
from vipsrv.address import Address
from vipsrv.client import AsyncClient, Client
from vipsrv.client.embedded import NOT_FOR_EMBEDDED, EmbeddedServer
from vipsrv.errors import StartFailed
from vipsrv.server.settings import ServerSettings

IMAGE = jpeg(40, 30)

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


def test_it_serves_within_its_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIPSRV_LISTEN", "127.0.0.1:1")  # would win over the port of its own
    with EmbeddedServer() as server, Client(server.host, server.port) as client:
        assert client.ping() > 0
    assert gone(server.port)


PASSED_ON = {
    *("workers", "jobs_per_worker", "gateways", "pin_workers", "sandbox", "worker_uid"),
    *("max_upload", "quality", "formats", "tolerate_truncated", "watermark"),
    *("max_pixels", "max_output_pixels", "max_frames", "max_effort", "max_expansion"),
    *("job_memory", "decode_memory"),
    *("connections", "connections_per_client", "queue", "queue_per_client"),
    *("deadline", "idle_timeout", "receive_timeout", "min_rate", "drain"),
    *("spool_dir", "spool_memory", "spool_disk"),
}


def test_it_is_decided_for_each_setting_whether_an_embedded_server_takes_it() -> None:
    assert ServerSettings.model_fields.keys() == PASSED_ON | NOT_FOR_EMBEDDED
    assert PASSED_ON.isdisjoint(NOT_FOR_EMBEDDED)


def test_it_does_not_take_what_is_meant_for_another_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each of these values would make it fail, or not be found."""
    for name in NOT_FOR_EMBEDDED:
        monkeypatch.setenv(f"VIPSRV_{name.upper()}", str(tmp_path / "none" / name))
        monkeypatch.setenv(f"vipsrv_{name}_file", str(tmp_path / "none" / name))
    monkeypatch.setenv("VIPSRV_CONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("VIPSRV_MAX_UPLOAD", "12345")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
        with EmbeddedServer() as server, Client(server.host, server.port) as client:
            assert client.hello().limits.max_upload == 12345
        with pytest.raises(BlockingIOError):
            manager.recv(1)


async def test_it_may_listen_at_a_unix_socket_with_its_own_number_of_workers(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with AsyncClient.embedded(server=EmbeddedServer(path=path, workers=1)) as client:
        assert (await client.hello()).limits.workers == 1
        assert path.is_socket()
    assert not path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_another_one_is_started_if_it_was_killed() -> None:
    server = EmbeddedServer()
    try:
        with Client(server.start().host, server.start().port) as client:
            assert client.ping() > 0
        (process,) = [one for one in psutil.Process().children() if "--until-stdin-closes" in one.cmdline()]
        process.kill()
        psutil.wait_procs([process], SECONDS)
        with Client(server.start().host, server.start().port) as client:
            assert client.ping() > 0
    finally:
        server.stop()


def test_it_ends_after_an_error() -> None:
    server = EmbeddedServer()
    with pytest.raises(KeyboardInterrupt), server as address:
        raise KeyboardInterrupt
    assert gone(address.port)


def test_ctrl_c_during_the_start_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_failed_start_states_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIPSRV_QUALITY", "101")
    with pytest.raises(StartFailed, match=r"could not be started: .*VIPSRV_QUALITY.*101"), EmbeddedServer():
        pass


def test_a_missing_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(StartFailed, match="No such file"), EmbeddedServer():
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no program there")
def test_a_program_that_prints_nothing_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 1000\n")
    silent.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(silent))
    monkeypatch.setattr("vipsrv.client.embedded.START_SECONDS", 0.2)
    with pytest.raises(StartFailed, match=r"printed nothing within 0\.2 s"), EmbeddedServer():
        pass


# Clients with an embedded server


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Address]:
    """The addresses of the servers that the clients of a test have started, with one worker each."""
    addresses: list[Address] = []

    class Recorded(EmbeddedServer):
        def start(self) -> Address:
            addresses.append(super().start())
            return addresses[-1]

    monkeypatch.setattr("vipsrv.client.blocking_client.EmbeddedServer", Recorded)
    monkeypatch.setattr("vipsrv.client.asyncio_client.EmbeddedServer", Recorded)
    monkeypatch.setenv("VIPSRV_WORKERS", "1")
    return addresses


def test_a_client_starts_one_with_its_first_call_and_stops_it(
    started: list[Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIPSRV_HOST", "nowhere.invalid")
    with Client.embedded() as client, ThreadPoolExecutor(3) as threads:
        results = [threads.submit(client.resize, IMAGE, width=8) for _ in range(3)]
        assert [result.result(SECONDS).height for result in results] == [6, 6, 6]
        (address,) = started
        assert not gone(address.port)
    assert gone(address.port)


async def test_an_async_client_starts_one_and_stops_it(started: list[Address]) -> None:
    async with AsyncClient.embedded() as client:
        result = await client.resize(IMAGE, width=8)
        assert (result.width, result.height) == (8, 6)
    assert gone(started[0].port)


def test_a_client_without_a_call_starts_none(started: list[Address]) -> None:
    with Client.embedded():
        pass
    assert started == []


def test_a_dropped_client_stops_its_server(started: list[Address]) -> None:
    def use_and_drop() -> None:
        client = Client.embedded()
        assert client.ping() > 0
        del client
        gc.collect()

    with pytest.warns(ResourceWarning, match="unclosed Client"):
        use_and_drop()
    assert gone(started[0].port)


def test_a_start_that_fails_is_raised_by_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIPSRV_QUALITY", "101")
    with Client.embedded() as client:
        for _ in range(2):
            with pytest.raises(StartFailed, match="could not be started"):
                client.ping()


def test_without_the_server_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vipsrv.client.embedded.server_is_installed", lambda: False)
    with Client.embedded() as client, pytest.raises(StartFailed, match="install vipsrv"):
        client.ping()
