"""Several gateways under a supervisor: real processes, and clients at work."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.server.identity.records import add
from tests.support import bare_client
from tests.support.image_comparison import open_exact
from tests.support.images import jpeg
from tests.support.running_server import RunningServer, wait_until, worker_pids
from tests.support.traffic import Traffic
from vipsrv.client import Client, Retry
from vipsrv.errors import Busy

IMAGE = jpeg()
TWO = ("--gateways", "2", "--workers", "2")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several gateways need Linux")


def gateway_pids(server: RunningServer) -> list[int]:
    """The gateway processes of a server."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return sorted(int(pid) for pid in children if b"gateways.child" in command_line(pid))


def command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def lines(server: RunningServer) -> list[dict[str, Any]]:
    """The lines of the log that are whole."""
    return [json.loads(line) for line in server.log.splitlines(keepends=True) if line.endswith("\n")]


def events(server: RunningServer, begin: str) -> list[dict[str, Any]]:
    return [line for line in lines(server) if line["event"].startswith(begin)]


def pid_of(server: RunningServer, gateway: int) -> int:
    """The process of a gateway, by the number that the log gives it."""
    wait_until(lambda: len(events(server, "started")) == 2, "a line of each gateway")
    return next(int(line["pid"]) for line in events(server, "started") if line["gateway"] == gateway)


def is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.fixture
def server(start_server: StartServer) -> RunningServer:
    return start_server(*TWO)


def connect_to_each(server: RunningServer, stack: ExitStack) -> dict[int, list[Client]]:
    """Connections until each gateway has one, by the number of the gateway, which the log tells."""
    clients: dict[int, list[Client]] = {}
    for number in range(100):
        client = stack.enter_context(Client(port=server.port))
        client.resize(IMAGE, width=20, height=10, request_id=f"connection-{number}")

        def logged(name: str = f"connection-{number}") -> list[int]:
            return [line["gateway"] for line in lines(server) if line.get("request_id") == name]

        wait_until(lambda logged=logged: bool(logged()), "the line of a request")  # type: ignore[misc]
        clients.setdefault(logged()[0], []).append(client)
        if len(clients) == 2:
            return clients
    raise AssertionError("all connections came to one gateway")


def test_connections_are_spread_over_two_gateways(server: RunningServer) -> None:
    assert len(gateway_pids(server)) == 2
    assert [len(worker_pids(pid)) for pid in gateway_pids(server)] == [1, 1]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: bare_client.ask(server.port, IMAGE, 20, 10), range(64)))
    assert all(open_exact(answer.result).size == (20, 10) for answer in answers)
    assert server.process.poll() is None
    # The last lines of requests are written within 0.1 s.
    wait_until(lambda: len(events(server, "request")) == 64, "64 lines of requests")
    share = Counter(line["gateway"] for line in events(server, "request"))
    assert share.keys() == {1, 2}
    assert min(share.values()) > 8  # by chance fewer in one of 10⁹ runs
    assert [line["workers"] for line in events(server, "started")] == [1, 1]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core only")
def test_gateways_and_their_workers_have_disjoint_cores(server: RunningServer) -> None:
    own = [os.sched_getaffinity(pid) for pid in gateway_pids(server)]
    assert own[0] | own[1] == os.sched_getaffinity(server.pid)
    assert not own[0] & own[1]
    for pid, cores in zip(gateway_pids(server), own, strict=True):
        assert all(os.sched_getaffinity(worker) <= cores for worker in worker_pids(pid))


def test_a_gateway_that_is_killed_is_replaced_and_its_connections_are_answered(server: RunningServer) -> None:
    with Traffic(server.port, connections=4) as traffic, ExitStack() as stack:
        clients = connect_to_each(server, stack)
        victim = pid_of(server, 1)
        (unaffected,) = [pid for pid in gateway_pids(server) if pid != victim]
        (orphan,) = worker_pids(victim)
        traffic.wait_for_more(10)
        os.kill(victim, signal.SIGKILL)
        # Connections that come now wait at most for the other gateway, whichever socket the kernel chose.
        with ThreadPoolExecutor(8) as pool:
            for answer in pool.map(lambda _: bare_client.ask(server.port, IMAGE, 20, 10), range(32)):
                assert answer.size > 0
        clients[2][0].resize(IMAGE, width=20, height=10)  # its connection has not noticed
        server.wait_for_log("gateway 1 serves again")
        assert not is_alive(orphan)
        pids = gateway_pids(server)
        assert unaffected in pids
        assert victim not in pids
        assert len(pids) == 2
        before = len([line for line in events(server, "request") if line["gateway"] == 1])
        traffic.wait_for_more(50)
        wait_until(
            lambda: len([line for line in events(server, "request") if line["gateway"] == 1]) > before,
            "a request at the replacement",
        )
    (told,) = events(server, "gateway 1 ended")
    assert "SIGKILL" in told["event"]
    assert told["level"] == "error"
    # Only requests in flight at the gateway that was killed are lost.
    assert len(traffic.errors) <= 4, traffic.errors
    assert server.stop() == 0


def test_connections_that_wait_at_a_gateway_that_hangs_survive_its_end(server: RunningServer) -> None:
    victim = pid_of(server, 1)
    os.kill(victim, signal.SIGSTOP)
    with ExitStack() as stack:
        waiting = [stack.enter_context(bare_client.connect(server.port)) for _ in range(32)]
        for sock in waiting:
            sock.sendall(bare_client.header(len(IMAGE), 20, 10) + IMAGE)
        os.kill(victim, signal.SIGKILL)
        assert all(bare_client.read_answer(sock).size > 0 for sock in waiting)


def test_a_gateway_that_is_told_to_stop_is_replaced_without_losing_a_request(server: RunningServer) -> None:
    with Traffic(server.port, connections=4) as traffic:
        traffic.wait_for_more(10)
        os.kill(gateway_pids(server)[0], signal.SIGTERM)
        server.wait_for_log("serves again")
        traffic.wait_for_more(10)
    assert traffic.errors == []
    assert len(gateway_pids(server)) == 2
    assert "it was told to stop; it is replaced now" in server.log


def test_a_gateway_that_cannot_be_replaced_yet_leaves_its_clients_to_another(
    start_server: StartServer, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.toml"
    shop = add(tokens, "shop")
    server = start_server(*TWO, "--tokens", str(tokens))
    text = tokens.read_text()
    tokens.write_text("no token file")
    os.kill(gateway_pids(server)[0], signal.SIGKILL)
    server.wait_for_log("it is replaced in 1 s")  # after its first pause, of 0.5 s
    for _ in range(32):  # some of them at the sockets of the one that is missing
        with Client(port=server.port, token=shop.text) as client:
            client.resize(IMAGE, width=20, height=10)
    tokens.write_text(text)
    server.wait_for_log("serves again")
    ended = [line["event"] for line in events(server, "gateway")]
    assert any("tokens.toml" in event and "it is replaced in 1 s" in event for event in ended), ended
    assert len(gateway_pids(server)) == 2


def test_a_drain_finishes_what_is_in_flight_at_all_gateways(start_server: StartServer) -> None:
    server = start_server(*TWO, "--receive-timeout", "600", "--drain", "600")
    processes = [server.pid, *gateway_pids(server), *map(worker_of, gateway_pids(server))]
    with ExitStack() as stack:
        clients = [stack.enter_context(bare_client.connect(server.port)) for _ in range(32)]
        for sock in clients:
            sock.sendall(bare_client.header(len(IMAGE), 20, 10) + IMAGE[:-1])
        # They have all been accepted when a later one of each gateway has been answered.
        connect_to_each(server, stack)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: len(events(server, "stopping")) == 3, "the stop of all")
        with pytest.raises(ConnectionRefusedError):
            bare_client.connect(server.port)
        for sock in clients:
            sock.sendall(IMAGE[-1:])
            assert bare_client.read_answer(sock).size > 0
    assert server.process.wait(bare_client.SECONDS) == 0
    assert not any(map(is_alive, processes))


def test_a_gateway_that_dies_while_all_drain_is_told(start_server: StartServer) -> None:
    server = start_server(*TWO, "--receive-timeout", "600", "--drain", "600")
    with ExitStack() as stack:
        for _ in range(32):
            sock = stack.enter_context(bare_client.connect(server.port))
            sock.sendall(bare_client.header(len(IMAGE), 20, 10) + IMAGE[:-1])
        connect_to_each(server, stack)
        victim = pid_of(server, 1)
        orphan = worker_of(victim)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: len(events(server, "stopping")) == 3, "the stop of all")
        os.kill(victim, signal.SIGKILL)
        # Its workers end at once, and not with the server.
        wait_until(lambda: not is_alive(orphan), "the end of its worker")
        assert server.process.poll() is None
    assert server.process.wait(bare_client.SECONDS) == 0
    (told,) = events(server, "gateway 1 ended before its requests in flight: it was killed by SIGKILL")
    assert told["level"] == "error"


def worker_of(gateway: int) -> int:
    (worker,) = worker_pids(gateway)
    return worker


def test_a_second_signal_stops_all_at_once(start_server: StartServer) -> None:
    server = start_server(*TWO, "--drain", "600", "--max-output-pixels", "1000000000")
    with bare_client.connect(server.port) as sock:
        sock.sendall(bare_client.header(len(IMAGE), 30_000, 30_000) + IMAGE)
        wait_until(lambda: any(map(is_busy, gateway_pids(server))), "a busy worker")
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: len(events(server, "stopping")) == 3, "the stop of all")
        server.process.send_signal(signal.SIGTERM)
        assert bare_client.read_answer(sock).error["status"] == 503
    assert server.process.wait(bare_client.SECONDS) == 0


def is_busy(gateway: int) -> bool:
    fields = Path(f"/proc/{worker_of(gateway)}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]) > 100  # ticks of 10 ms; its start takes some 30


def test_gateways_and_workers_end_with_a_supervisor_that_is_killed(server: RunningServer) -> None:
    gateways = gateway_pids(server)
    processes = [*gateways, *map(worker_of, gateways)]
    with bare_client.connect(server.port) as sock:
        sock.sendall(bare_client.header(len(IMAGE), 20, 10) + IMAGE[:-1])
        for _ in range(8):  # the connections before have been accepted
            bare_client.ask(server.port, IMAGE, 20, 10)
        server.process.kill()
        server.process.wait()
        wait_until(lambda: server.log.count("the supervisor has ended") == 2, "the end of the supervisor")
        sock.sendall(IMAGE[-1:])
        assert bare_client.read_answer(sock).size > 0
    wait_until(lambda: not any(map(is_alive, processes)), "the end of all processes")
    with pytest.raises(ConnectionRefusedError):
        bare_client.connect(server.port)


# Start


def serve(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A server that is expected to exit by itself."""
    return subprocess.run(
        [sys.executable, "-m", "vipsrv", "serve", "--no-config", *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=bare_client.SECONDS,
        check=False,
    )


def test_more_gateways_than_workers() -> None:
    ended = serve("--port", "0", "--gateways", "3", "--workers", "2")
    assert ended.returncode == 1
    assert "each of 3 gateways needs a worker, and --workers is 2" in ended.stderr


def test_a_gateway_that_cannot_start_fails_the_start_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "pyvips.py").write_text("raise ImportError('libvips is not to be found')")
    ended = serve("--port", "0", *TWO, PYTHONPATH=str(tmp_path))
    assert ended.returncode == 1
    assert "gateway 1: " in ended.stderr or "gateway 2: " in ended.stderr
    assert "libvips is not to be found" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_terminal_that_interrupts_the_start_gets_no_traceback() -> None:
    command = [sys.executable, "-m", "vipsrv", "serve", "--no-config", "--port", "0", *TWO]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, start_new_session=True
    ) as process:

        def gateways() -> str:
            return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()

        wait_until(lambda: len(gateways().split()) == 2, "two processes, which only just start")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=bare_client.SECONDS)
    assert process.returncode == 0
    assert "Traceback" not in errors


def test_a_port_of_another_server_is_taken(server: RunningServer) -> None:
    second = serve("--port", str(server.port), *TWO)
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{server.port}: Address already in use" in second.stderr
    one = serve("--port", str(server.port), "--gateways", "1", "--workers", "1")
    assert one.returncode == 1
    assert bare_client.ask(server.port, IMAGE, 20, 10).size > 0


def test_a_unix_socket_is_served_by_both(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start_server(*TWO, "--listen", f"unix:{path}", "--listen", "127.0.0.1:0")
    pids = gateway_pids(server)

    def ask() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(bare_client.SECONDS)
            sock.connect(str(path))
            sock.sendall(bare_client.header(len(IMAGE), 20, 10) + IMAGE)
            assert bare_client.read_answer(sock).size > 0

    for stopped in pids:  # the other one serves
        os.kill(stopped, signal.SIGSTOP)
        ask()
        os.kill(stopped, signal.SIGCONT)
    wait_until(lambda: len(events(server, "request")) == 2, "two lines of requests")
    assert {line["gateway"] for line in events(server, "request")} == {1, 2}
    os.kill(pids[0], signal.SIGKILL)
    server.wait_for_log("serves again")
    assert path.exists()
    ask()
    assert server.stop() == 0
    assert not path.exists()


def test_ipv4_and_ipv6(start_server: StartServer) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("there is no IPv6 here")
    server = start_server(*TWO, "--listen", "127.0.0.1:0", "--listen", "[::1]:0")
    for listener in server.listeners:
        host, _, port = listener.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), bare_client.SECONDS) as sock:
            sock.sendall(bare_client.header(len(IMAGE), 20, 10) + IMAGE)
            assert bare_client.read_answer(sock).size > 0


# Reload


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "vipsrv.toml"


def reload(config: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "vipsrv", "reload", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=bare_client.SECONDS,
        check=False,
    )


def test_a_reload_reaches_all_gateways_or_none(
    start_server: StartServer, config: Path, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.toml"
    shop = add(tokens, "shop")
    always = f'gateways = 2\nworkers = 2\npid_file = "{tmp_path / "pid"}"\ntokens = "{tokens}"\n'
    config.write_text(always)
    server = start_server("--config", str(config))
    before = gateway_pids(server)

    def limits() -> set[int | None]:
        """What the gateways say about the largest upload; by chance only one is asked in 1 of 2⁴⁰ runs."""
        found: set[int | None] = set()
        for _ in range(40):
            with Client(port=server.port, token=shop.text) as client:
                found.add(client.hello().limits.max_upload)
        return found

    assert limits() == {2 * 1024**3}
    config.write_text(f"{always}max_upload = 5000\ngateways_ = 1\n")
    refused = reload(config)
    assert refused.returncode == 1
    assert "gateways_" in refused.stderr
    tokens_text = tokens.read_text()
    tokens.write_text("no token file")  # which only the gateways read
    config.write_text(f"{always}max_upload = 5000\n")
    refused = reload(config)
    assert refused.returncode == 1
    assert refused.stderr.count(str(tokens)) == 1  # once, not by each gateway
    assert limits() == {2 * 1024**3}
    tokens.write_text(tokens_text)
    taken = reload(config)
    assert taken.returncode == 0, taken.stderr
    assert "max_upload from" in taken.stdout
    assert limits() == {5000}
    assert gateway_pids(server) == before
    # A replacement starts with what was reloaded.
    os.kill(before[0], signal.SIGKILL)
    server.wait_for_log("serves again")
    assert limits() == {5000}
    server.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: len(events(server, "the settings were reloaded")) == 2, "a second reload")


def test_the_log_file_is_opened_again_by_all(start_server: StartServer, config: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    config.write_text(f'gateways = 2\nworkers = 2\npid_file = "{tmp_path / "pid"}"\nlog_file = "{log}"\n')
    server = start_server("--config", str(config))
    log.rename(tmp_path / "old")
    assert reload(config).returncode == 0
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: bare_client.ask(server.port, IMAGE, 20, 10), range(40)))
    wait_until(lambda: log.read_text().count('"event":"request"') == 40, "40 lines in the new file")
    gateways = {json.loads(line).get("gateway") for line in log.read_text().splitlines()}
    assert gateways == {None, 1, 2}


# Limits of identities


@pytest.mark.parametrize("connections", [1, 12])
def test_a_token_has_its_rate_over_all_gateways(
    start_server: StartServer, tmp_path: Path, connections: int
) -> None:
    tokens = tmp_path / "tokens.toml"
    shop = add(tokens, "shop", limits={"requests_per_second": 0.01})  # one, and then none for 100 s
    burst = add(tokens, "burst", limits={"requests_per_second": 20})  # twenty at once
    server = start_server(*TWO, "--tokens", str(tokens))
    with ExitStack() as stack:

        def connect(token: str) -> list[Client]:
            clients = [Client(port=server.port, token=token, retry=Retry.none()) for _ in range(connections)]
            return [stack.enter_context(client) for client in clients]

        assert count_admitted(connect(shop.text), 2) == 1
        others = connect(burst.text)
        began = time.monotonic()
        admitted = count_admitted(others, 60)
        took = time.monotonic() - began
    # The burst, and not more than what has become free since.
    assert admitted <= 20 + 20 * took + 1
    assert admitted >= 20


def count_admitted(clients: list[Client], least: int) -> int:
    """How many of at least so many requests, sent in turns, are not refused."""
    admitted = 0
    for number in range(max(least, len(clients))):
        try:
            clients[number % len(clients)].resize(IMAGE, width=20, height=10)
        except Busy:
            continue
        admitted += 1
    return admitted


# systemd and hand-over


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(bare_client.SECONDS)
        yield manager


def test_systemd_sees_one_service(manager: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "2000000"}
    with socket.create_server(("127.0.0.1", 0)) as given:
        with RunningServer(*TWO, environment=environment, sockets=[given]) as server:
            ready = manager.recv(4096).decode()
            assert ready == f"READY=1\nSTATUS=2 gateways, 2 workers, listening on {server.listeners[0]}"
            for pid in gateway_pids(server):
                assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()
            while manager.recv(4096) != b"WATCHDOG=1":
                pass
            for stopped in gateway_pids(server):  # the socket is shared by both
                os.kill(stopped, signal.SIGSTOP)
                assert bare_client.ask(server.port, IMAGE, 20, 10).size > 0
                os.kill(stopped, signal.SIGCONT)
            assert server.stop() == 0
        while not manager.recv(4096).startswith(b"STOPPING=1"):
            pass
        bare_client.connect(given.getsockname()[1]).close()  # the socket is systemd's


def test_no_connection_is_lost_while_servers_take_over(start_server: StartServer, tmp_path: Path) -> None:
    control, path = tmp_path / "control", tmp_path / "socket"
    listen = ("--listen", "127.0.0.1:0", "--listen", f"unix:{path}")
    arguments = ("--control", str(control), *listen, "--workers", "3")
    running = start_server("--gateways", "1", *arguments)
    port = running.port
    with Traffic(port, connections=8) as traffic:
        for gateways in ("2", "3", "2", "1"):
            traffic.wait_for_more(20)
            successor = start_server("--gateways", gateways, *arguments, "--takeover")
            assert running.process.wait(bare_client.SECONDS) == 0
            running = successor
            assert running.port == port
        traffic.wait_for_more(20)
    assert traffic.errors == []
    assert path.exists()
    assert running.stop() == 0
    assert not path.exists()
    assert not control.exists()
