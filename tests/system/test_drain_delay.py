"""A server that stops tells load balancers first, and serves meanwhile as if nothing had happened."""

import http.client
import signal
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.support import bare_client
from tests.support.images import jpeg
from tests.support.ops import get
from tests.support.running_server import RunningServer
from vipsrv.client import Client

IMAGE = jpeg()
HEADER = struct.Struct("!I4sBBHIIQ")


def ping(port: int) -> int:
    """The status of the reply to a PING, as load balancers send it."""
    with bare_client.connect(port) as sock:
        sock.sendall(HEADER.pack(0, b"VIPS", 2, 6, 0, 1, 0, 0))
        status: int = HEADER.unpack(bare_client.read_exactly(sock, HEADER.size))[4]
    return status


@pytest.fixture(params=[1, 2], ids=["one gateway", "two gateways"])
def leaving(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """A server that was told to stop and drains only after the test."""
    gateways = str(request.param)
    arguments = ["--workers", gateways, "--gateways", gateways, "--drain-delay", "600"]
    listen = ["--listen", "127.0.0.1:0", "--listen", "http://127.0.0.1:0", "--ops-listen", "127.0.0.1:0"]
    with RunningServer(*listen, *arguments) as server:
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("the drain begins in 600 s")
        yield server


def test_a_server_that_is_about_to_stop_serves_everything_and_is_not_ready(leaving: RunningServer) -> None:
    assert bare_client.ask(leaving.port, IMAGE, 20, 10).result
    with Client(port=leaving.port) as client:
        assert client.resize(IMAGE, width=20, height=10).data
    assert ping(leaving.port) == 503
    ready = get(leaving.ops, "/readyz")
    assert (ready.status, "about to stop" in ready.text) == (503, True)
    assert get(leaving.ops, "/livez").status == 200
    _, _, port = leaving.listeners[1].rpartition(":")
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=bare_client.SECONDS)
    connection.request("POST", "/resize?width=20&height=10", IMAGE)
    response = connection.getresponse()
    assert response.status == 200
    assert response.headers["Connection"] == "close"
    connection.close()
    # The second signal does not wait.
    leaving.process.send_signal(signal.SIGTERM)
    assert leaving.process.wait(bare_client.SECONDS) == 0


def test_the_drain_follows_the_delay() -> None:
    with RunningServer("--workers", "1", "--drain-delay", "0.1") as server:
        assert ping(server.port) == 200
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("the drain begins in 0.1 s")
        assert server.process.wait(bare_client.SECONDS) == 0
        with pytest.raises(ConnectionRefusedError):
            bare_client.connect(server.port)


def test_there_is_no_delay_if_the_listening_sockets_live_on() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        RunningServer("--workers", "1", "--drain-delay", "600", sockets=[tcp]) as server,
    ):
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(bare_client.SECONDS) == 0
