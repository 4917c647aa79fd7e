"""HAProxy with the configuration of docker/haproxy/ in front of real servers on the loopback interface."""

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import bare_client
from tests.support.haproxy import CONFIGURATION, HAPROXY, RunningHaproxy, needs_haproxy
from tests.support.images import jpeg
from tests.support.running_server import RunningServer, wait_until
from tests.support.traffic import Traffic
from tests.support.unused_port import unused_port
from vipsrv.client import Client

pytestmark = needs_haproxy

IMAGE = jpeg()
DRAIN_DELAY = 1.5
"""Seconds, three intervals of the health check."""


class Cluster:
    """Servers behind HAProxy, each of which may be replaced by another one that is started."""

    def __init__(
        self, stack: ExitStack, *, servers: int = 3, tls: str = "off", folder: Path | None = None
    ) -> None:
        self._stack = stack
        self._scheme = ("tls://", "https://") if tls == "passthrough" else ("", "http://")
        self._more: list[str] = []
        if tls == "passthrough":
            self._more = ["--tls-cert", f"{folder}/cert.pem", "--tls-key", f"{folder}/key.pem"]
        self.ports = [(unused_port(), unused_port()) for _ in range(servers)]
        with ThreadPoolExecutor() as at_once:
            self.servers = list(at_once.map(self.start, range(servers)))
        # HAProxy always has three.
        self.haproxy = stack.enter_context(
            RunningHaproxy((self.ports * 3)[:3], {"TLS": tls, "TLS_FILE": f"{folder}/haproxy.pem"})
        )

    def start(self, number: int) -> RunningServer:
        binary, http = self._scheme
        port, http_port = self.ports[number]
        server = self._stack.enter_context(
            RunningServer(
                *("--listen", f"{binary}127.0.0.1:{port}", "--listen", f"{http}127.0.0.1:{http_port}"),
                *("--trusted-proxies", "127.0.0.1/32", "--drain-delay", str(DRAIN_DELAY), "--workers", "1"),
                *self._more,
            )
        )
        self._stack.callback(server.process.kill)  # at the end nobody waits for its drain
        return server

    def served(self, client: str) -> list[int]:
        """How many requests of a client's address each server has in its log."""
        return [server.log.count(f'"peer":"{client}:') for server in self.servers]

    def requests(self, kind: str) -> list[dict[str, Any]]:
        """The lines of the servers' logs about requests of this kind."""
        lines = [
            json.loads(line) for server in self.servers for line in server.log.splitlines() if "{" in line
        ]
        return [line for line in lines if line["event"] == "request" and line["kind"] == kind]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(stack)


def ask_version_1(port: int, source: str = "127.0.0.1") -> bare_client.Answer:
    """One request of version 1, from an address of the loopback network."""
    where = ("127.0.0.1", port)
    with socket.create_connection(where, bare_client.SECONDS, source_address=(source, 0)) as sock:
        sock.sendall(bare_client.header(len(IMAGE), 20, 10) + IMAGE)
        return bare_client.read_answer(sock)


def ask_http(port: int, context: ssl.SSLContext | None = None, source: str = "127.0.0.1") -> bytes:
    """One request over HTTP."""
    where = ("127.0.0.1", port)
    connection = (
        http.client.HTTPConnection(*where, timeout=bare_client.SECONDS, source_address=(source, 0))
        if context is None
        else http.client.HTTPSConnection(*where, timeout=bare_client.SECONDS, context=context)
    )
    try:
        connection.request("POST", "/resize?width=20&height=10", IMAGE)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        return body
    finally:
        connection.close()


@pytest.mark.parametrize("affinity", ["none", "source"])
@pytest.mark.parametrize("tls", ["off", "passthrough", "termination"])
def test_haproxy_accepts_the_configuration(tls: str, affinity: str, certificates: Path) -> None:
    assert HAPROXY is not None
    addresses = {f"{name}{number}": "127.0.0.1:1" for name in ("SERVER", "HTTP") for number in (1, 2, 3)}
    chosen = {"TLS": tls, "TLS_FILE": str(certificates / "haproxy.pem"), "AFFINITY": affinity}
    done = subprocess.run(
        [HAPROXY, "-c", "-f", CONFIGURATION],
        env={**os.environ, **addresses, **chosen},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a certificate for 127.0.0.1, with the file that HAProxy wants."""
    folder = tmp_path_factory.mktemp("tls") / "certificates"
    subprocess.run(
        [sys.executable, "-m", "vipsrv", "cert", "self-signed", str(folder)], check=True, timeout=60
    )
    pem = (folder / "cert.pem").read_text() + (folder / "key.pem").read_text()
    (folder / "haproxy.pem").write_text(pem)
    return folder


def test_both_versions_and_http_are_served_and_the_log_has_the_clients_address(cluster: Cluster) -> None:
    haproxy = cluster.haproxy
    assert ask_version_1(haproxy.port, "127.1.0.1").result
    with Client(port=haproxy.port) as client:
        assert client.resize(IMAGE, width=20, height=10).data
    assert ask_http(haproxy.http_port, source="127.1.0.3")
    wait_until(lambda: len(cluster.requests("resize")) == 3, "three requests in the servers' logs")
    found = {(one["protocol"], one["peer"].partition(":")[0]) for one in cluster.requests("resize")}
    assert found == {("v1", "127.1.0.1"), ("v2", "127.0.0.1"), ("http", "127.1.0.3")}
    # Neither a connection of the health check nor one of a client was refused.
    assert [server.log for server in cluster.servers if "PROXY protocol" in server.log] == []


def test_a_dead_server_and_one_that_hangs_get_no_clients(cluster: Cluster) -> None:
    haproxy = cluster.haproxy
    cluster.servers[0].process.kill()
    cluster.servers[1].process.send_signal(signal.SIGSTOP)
    haproxy.wait_for_states("DOWN", "DOWN", "UP")
    for _ in range(3):
        assert ask_version_1(haproxy.port).result
        assert ask_http(haproxy.http_port)
    cluster.servers[1].process.send_signal(signal.SIGCONT)
    cluster.servers[0] = cluster.start(0)
    haproxy.wait_for_states("UP", "UP", "UP")


def test_a_server_that_drains_keeps_the_connections_that_it_has(cluster: Cluster) -> None:
    haproxy, server = cluster.haproxy, cluster.servers[2]
    with ExitStack() as stack:
        # leastconn: one of the three is with the third server.
        kept = [stack.enter_context(bare_client.connect(haproxy.port)) for _ in range(3)]
        for sock in kept:
            sock.sendall(bare_client.header(len(IMAGE), 20, 10))
        server.process.send_signal(signal.SIGTERM)
        haproxy.wait_for_states("UP", "UP", "NOLB")
        for sock in kept:
            sock.sendall(IMAGE)
        assert all(bare_client.read_answer(sock).result for sock in kept)
    assert server.process.wait(bare_client.SECONDS) == 0
    assert '"kind":"resize"' in server.log
    cluster.servers[2] = cluster.start(2)
    haproxy.wait_for_states("UP", "UP", "UP")


def test_an_upload_by_tus_goes_on_at_the_server_that_has_its_beginning(cluster: Cluster) -> None:
    tus = {"Tus-Resumable": "1.0.0"}
    part = {**tus, "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    with httpx.Client(base_url=f"http://127.0.0.1:{cluster.haproxy.http_port}", timeout=60) as client:
        for _ in range(4):  # more than there are servers, which take turns while all are idle
            created = client.post("/files", headers={**tus, "Upload-Length": str(len(IMAGE))})
            assert created.status_code == 201
            where = created.headers["Location"]
            assert client.patch(where, headers=part, content=IMAGE).status_code == 204
            assert client.head(where, headers=tus).headers["Upload-Offset"] == str(len(IMAGE))
            upload = where.rpartition("/")[2]
            assert client.post(f"/resize?upload={upload}&width=20&height=10").status_code == 200
            assert client.delete(where, headers=tus).status_code == 204


def test_all_connections_of_an_address_may_go_to_one_server(cluster: Cluster) -> None:
    with RunningHaproxy(cluster.ports, {"AFFINITY": "source"}) as haproxy:
        for _ in range(6):
            assert ask_version_1(haproxy.port, "127.2.0.1").result
    wait_until(lambda: sum(cluster.served("127.2.0.1")) == 6, "six requests in the logs")
    assert sorted(cluster.served("127.2.0.1")) == [0, 0, 6]


def test_servers_are_replaced_one_after_another_and_no_request_fails(cluster: Cluster) -> None:
    haproxy = cluster.haproxy
    with Traffic(haproxy.port, connections=4, http_port=haproxy.http_port) as traffic:
        for number, server in enumerate(cluster.servers):
            traffic.wait_for_more(20)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(bare_client.SECONDS) == 0
            cluster.servers[number] = cluster.start(number)
            haproxy.wait_for_states("UP", "UP", "UP")
        traffic.wait_for_more(20)
    assert traffic.errors == []


@pytest.mark.parametrize("tls", ["passthrough", "termination"])
def test_tls(tls: str, certificates: Path) -> None:
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    with ExitStack() as stack:
        haproxy = Cluster(stack, servers=1, tls=tls, folder=certificates).haproxy
        with context.wrap_socket(bare_client.connect(haproxy.port), server_hostname="127.0.0.1") as sock:
            sock.sendall(bare_client.header(len(IMAGE), 20, 10) + IMAGE)
            assert bare_client.read_answer(sock).result
        assert ask_http(haproxy.http_port, context)
