"""The ops listener of real servers: health in all conditions, hand-over, several gateways."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.support import bare_client
from tests.support.images import jpeg
from tests.support.ops import ask, get
from tests.support.running_server import RunningServer, serve, wait_until, worker_pids
from tests.support.traffic import Traffic

OPS = ("--ops-listen", "127.0.0.1:0")
NOT_READY_SECONDS = 10
"""Within this time a server whose workers are stopped has to say so."""

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="several gateways need Linux")


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Processes that are stopped, and go on afterwards if they still exist."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGCONT)


def all_workers(server: RunningServer) -> list[int]:
    """The workers of a server, or of all its gateways."""
    return [pid for parent in (server.pid, *gateways(server)) for pid in worker_pids(parent)]


def gateways(server: RunningServer) -> list[int]:
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    found = []
    for pid in map(int, children):
        with suppress(OSError):  # it has just ended
            if b"gateways.child" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def done(traffic: Traffic, number: int) -> Callable[[], bool]:
    """Whether so many requests have succeeded."""
    return lambda: traffic.done >= number


@pytest.fixture
def server(start_server: StartServer) -> RunningServer:
    return start_server("--workers", "2", *OPS)


@pytest.mark.parametrize("recovers_by", ["SIGCONT", "replacement"])
@pytest.mark.parametrize("more", [(), pytest.param(("--gateways", "2"), marks=needs_linux)], ids=str)
def test_stopped_workers_make_a_server_not_ready_and_it_recovers_by_itself(
    start_server: StartServer, more: tuple[str, ...], recovers_by: str
) -> None:
    server = start_server("--workers", "2", *OPS, *more)
    # The first canary of another gateway may take longer than it is waited for.
    wait_until(lambda: get(server.ops, "/readyz").text == "ready\n", "canaries of all gateways")
    pids = all_workers(server)
    assert len(pids) == 2
    with stopped(pids):
        began = time.monotonic()
        reply = get(server.ops, "/readyz")
        while reply.status == 200:  # of a canary from before
            assert time.monotonic() - began < NOT_READY_SECONDS
            reply = get(server.ops, "/readyz")
        assert reply.status == 503
        assert "has had the canary image for" in reply.text
        assert get(server.ops, "/livez").status == 200
        assert get(server.ops, "/metrics").status == 200
        if recovers_by == "replacement":
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: get(server.ops, "/readyz").status == 200, "workers that replace them")
    wait_until(lambda: get(server.ops, "/readyz").status == 200, "workers that go on")
    server.wait_for_log("the server is not ready: ")
    server.wait_for_log("the server is ready again")


def test_a_server_under_full_load_is_ready(start_server: StartServer) -> None:
    server = start_server("--workers", "1", "--queue", "1", "--connections", "6", *OPS)
    with Traffic(server.port, connections=8) as traffic:
        wait_until(lambda: "busy" in "".join(traffic.errors), "a request that is refused")
        for _ in range(3):
            assert get(server.ops, "/readyz").text == "ready\n"
            assert get(server.ops, "/livez").text == "alive\n"
            assert get(server.ops, "/metrics").status == 200
            wait_until(done(traffic, traffic.done + 5), "requests that succeed")


def test_the_operator_watches_a_drain_to_the_end(server: RunningServer) -> None:
    image = jpeg()
    pids = worker_pids(server.pid)
    with bare_client.connect(server.port) as client:
        with stopped(pids):
            client.sendall(bare_client.header(len(image), 20, 10) + image)
            wait_until(lambda: "vipsrv_in_flight_requests 1" in get(server.ops, "/metrics").text, "a request")
            server.process.send_signal(signal.SIGTERM)
            server.wait_for_log("stopping: 1 connections")
            reply = get(server.ops, "/readyz")
            assert (reply.status, reply.text) == (503, "not ready: the server is draining: it stops\n")
            assert get(server.ops, "/livez").status == 200
            assert get(server.ops, "/metrics").status == 200
            refused = ask(server.ops, "POST", "/resize?width=20", image)
            assert (refused.status, refused.json["code"]) == (503, "draining")
        assert bare_client.read_answer(client).result
    assert server.process.wait(bare_client.SECONDS) == 0
    with pytest.raises(ConnectionError):
        get(server.ops, "/livez")


@needs_linux
def test_the_operator_watches_the_drain_of_each_gateway(start_server: StartServer) -> None:
    server = start_server("--workers", "2", "--gateways", "2", "--drain", "3", *OPS)
    first, second = sorted(gateways(server))
    image = jpeg()
    with stopped(worker_pids(second)), ExitStack() as stack:
        clients = []
        for _ in range(16):  # the kernel chooses the gateway of each
            client = stack.enter_context(bare_client.connect(server.port))
            client.sendall(bare_client.header(len(image), 20, 10) + image)
            clients.append(client)
        # Those of the first gateway are done at once, and those of the second wait until its drain is over.
        wait_until(lambda: in_flight(server) == len(waiting(clients)) > 0, "requests that wait")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("stopping: ")
        assert get(server.ops, "/readyz").status == 503
        while second in (left := gateways(server)):
            assert first in left, "it has the listener"
            time.sleep(0.01)
    assert server.process.wait(bare_client.SECONDS) == 0


def in_flight(server: RunningServer) -> int:
    metrics = get(server.ops, "/metrics").text
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in metrics.splitlines()
        if line.startswith("vipsrv_in_flight_requests")
    )


def waiting(clients: list[socket.socket]) -> list[socket.socket]:
    """Those that have got no reply."""
    readable, _, _ = select.select(clients, [], [], 0)
    return [client for client in clients if client not in readable]


def test_the_pages_and_the_routes_for_images(server: RunningServer) -> None:
    assert b"<html" in get(server.ops, "/").body
    assert get(server.ops, "/formats").status == 200
    image = jpeg()
    reply = ask(server.ops, "POST", "/resize?width=20&height=10", image)
    assert (reply.status, reply.body[:2]) == (200, b"\xff\xd8")
    metrics = get(server.ops, "/metrics").text
    requests = [line for line in metrics.splitlines() if line.startswith("vipsrv_requests_total{")]
    assert len(requests) == 1, "neither scrapes, nor probes, nor the canary are requests"
    assert 'kind="resize"' in requests[0]
    assert requests[0].endswith(" 1")


def test_requests_from_other_web_sites_are_refused(server: RunningServer) -> None:
    other = {"origin": "https://example.com", "sec_fetch_site": "cross-site"}
    assert ask(server.ops, "POST", "/resize?width=20", jpeg(), **other).status == 400
    assert get(server.ops, "/events", **other).status == 400
    assert get(server.ops, "/", host="rebound.example.com").status == 400
    assert get(server.ops, "/readyz", host="rebound.example.com", **other).status == 200


def test_a_unix_socket(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "ops"
    server = start_server("--workers", "1", "--ops-listen", f"unix:{path}")
    assert server.ops.endswith(f"unix:{path}")
    assert get(server.ops, "/readyz").status == 200
    assert get(server.ops, "/", host="any.example.com").status == 200
    assert server.stop() == 0
    assert not path.exists()


def test_a_socket_of_systemd() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with RunningServer(
            *("--port", "0", "--workers", "1", *OPS),
            environment={"LISTEN_FDNAMES": "vipsrv-ops"},
            sockets=[listener],
        ) as server:
            assert server.ops == f"http://127.0.0.1:{port}"
            assert get(server.ops, "/readyz").status == 200
            assert bare_client.ask(server.port, jpeg(), 20, 10).size > 0
            server.wait_for_log("--ops-listen: passed over")


# Where the port is taken.


@contextmanager
def default_port_taken() -> Iterator[None]:
    """Something listens on the default port, from here or from elsewhere."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", 9464))
            other.listen()
        except OSError:
            pass  # somebody else has it, which is as good
        yield


@pytest.mark.parametrize("more", [("--gateways", "1"), pytest.param(("--gateways", "2"), marks=needs_linux)])
def test_a_server_goes_on_without_the_default_port(tmp_path: Path, more: tuple[str, ...]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VIPSRV_")}
    with default_port_taken(), (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "vipsrv", "serve", "--no-config", "--port", "0", "--workers", "2", *more],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        assert bare_client.ask(port, jpeg(), 20, 10).size > 0
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "", "it names no address for its operator"
        assert process.wait(bare_client.SECONDS) == 0
        process.stdout.close()
    text = (tmp_path / "log").read_text()
    assert (
        "no metrics and no health over HTTP: cannot listen on ops://127.0.0.1:9464: Address already" in text
    )


@pytest.mark.parametrize("more", [("--gateways", "1"), pytest.param(("--gateways", "2"), marks=needs_linux)])
def test_a_chosen_port_that_is_taken(server: RunningServer, more: tuple[str, ...]) -> None:
    taken = server.ops.removeprefix("http://")
    ended = serve("--no-config", "--port", "0", "--workers", "2", "--ops-listen", taken, *more)
    assert ended.returncode == 1
    assert f"--ops-listen: cannot listen on ops://{taken}: Address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("value", ["tls://127.0.0.1:0", "http://127.0.0.1:0", "9464", ""])
def test_an_invalid_address(value: str) -> None:
    ended = serve("--no-config", "--ops-listen", value)
    assert ended.returncode == 2
    assert "--ops-listen: " in ended.stderr


def test_a_listener_that_others_can_reach_is_warned_of(start_server: StartServer) -> None:
    server = start_server("--workers", "1", "--ops-listen", "0.0.0.0:0")
    server.wait_for_log("for the operator, can be reached from other machines")
    where = f"http://127.0.0.1:{server.ops.rpartition(':')[2]}"
    assert get(where, "/", host="vipsrv.internal:9464").status == 200, "its names are not known here"
    quiet = start_server("--workers", "1", "--ops-listen", "0.0.0.0:0", "--insecure")
    quiet.wait_for_log('"event":"started"')
    assert "can be reached" not in quiet.log


# Successors and several gateways.


@pytest.mark.parametrize("more", [(), pytest.param(("--gateways", "2"), marks=needs_linux)], ids=str)
def test_the_successor_has_the_listener(
    start_server: StartServer, tmp_path: Path, more: tuple[str, ...]
) -> None:
    arguments = ("--workers", "2", "--control", str(tmp_path / "control"), *more)
    first = start_server(*arguments, *OPS)
    second = start_server(*arguments, *OPS, "--takeover")
    assert second.ops == first.ops
    assert first.process.wait(bare_client.SECONDS) == 0
    assert get(second.ops, "/readyz").status == 200
    third = start_server(*arguments, "--takeover")  # its operator wants none
    assert second.process.wait(bare_client.SECONDS) == 0
    with pytest.raises(ConnectionError):
        get(second.ops, "/livez")
    fourth = start_server(*arguments, *OPS, "--takeover")
    assert third.process.wait(bare_client.SECONDS) == 0
    assert get(fourth.ops, "/readyz").status == 200


@needs_linux
def test_several_gateways_answer_as_one(start_server: StartServer) -> None:
    server = start_server("--gateways", "2", "--workers", "2", *OPS)
    readiness = get(server.ops, "/readyz", accept="application/json").json
    assert readiness["gateways"] == {"ready": 2, "total": 2}

    for _ in range(8):  # the kernel spreads the connections
        assert bare_client.ask(server.port, jpeg(), 20, 10).size > 0
    metrics = get(server.ops, "/metrics").text
    counted = [
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith("vipsrv_requests_total{") and 'kind="resize"' in line
    ]
    assert sum(counted) == 8


@needs_linux
@pytest.mark.parametrize("number", [0, 1])
def test_one_gateway_is_enough_and_each_may_be_killed(start_server: StartServer, number: int) -> None:
    server = start_server("--gateways", "2", "--workers", "2", *OPS)
    assert get(server.ops, "/readyz").status == 200
    os.kill(sorted(gateways(server))[number], signal.SIGKILL)
    server.wait_for_log("it is replaced")
    assert get(server.ops, "/readyz").status == 200
    assert get(server.ops, "/metrics").status == 200

    def both() -> bool:
        answer = get(server.ops, "/readyz", accept="application/json").json
        return bool(answer["gateways"] == {"ready": 2, "total": 2})

    wait_until(both, "two gateways that are ready")


@needs_linux
def test_a_gateway_whose_workers_are_stopped_is_counted(start_server: StartServer) -> None:
    server = start_server("--gateways", "2", "--workers", "2", *OPS)
    assert get(server.ops, "/readyz").text == "ready\n"
    with stopped(worker_pids(min(gateways(server)))):
        wait_until(lambda: "1 of 2 gateways are ready" in get(server.ops, "/readyz").text, "one less")
        assert get(server.ops, "/readyz").status == 200
    wait_until(lambda: get(server.ops, "/readyz").text == "ready\n", "both")


@needs_linux
def test_a_gateway_that_is_stuck_is_left_out(start_server: StartServer) -> None:
    server = start_server("--gateways", "2", "--workers", "2", *OPS)
    assert get(server.ops, "/readyz").text == "ready\n"
    first, second = sorted(gateways(server))
    for stuck in (first, second):
        with stopped([stuck]):
            try:
                connection = socket.create_connection(("127.0.0.1", int(server.ops.rpartition(":")[2])), 1)
                connection.settimeout(3)
                connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                with connection, connection.makefile("rb") as reply:
                    text = reply.read().decode()
            except TimeoutError:
                continue  # it is the one that has the listener
            assert "1 of 2 gateways are ready" in text
            assert get(server.ops, "/metrics").status == 200
    server.wait_for_log("figures are incomplete: gateway 2 did not answer in time")
