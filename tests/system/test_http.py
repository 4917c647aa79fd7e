"""HTTP from outside: listeners of all kinds, other clients, hand-over and several gateways."""

import contextlib
import http.client
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.support import bare_client
from tests.support.certificates import Lab
from tests.support.images import jpeg
from tests.support.running_server import RunningServer, serve, wait_until
from vipsrv import Client, ProtocolError
from vipsrv.address import Address

IMAGE = jpeg()
HTTP = ("--listen", "http://127.0.0.1:0")
PROXY_HEADER = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + struct.pack(
    "!4s4sHH", b"\7\7\7\7", b"\1\1\1\1", 77, 80
)
"""Version 2, of a client at 7.7.7.7:77."""


def port_of(server: RunningServer, number: int = 0) -> int:
    return Address.parse(server.listeners[number]).port


def resized(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
    """Have the image resized; the connection lives on."""
    connection.request("POST", "/resize?width=20&height=10", IMAGE)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    assert response.read().startswith(b"\xff\xd8\xff")
    return response


def test_both_protocols_at_once(start_server: StartServer) -> None:
    server = start_server("--workers", "1", "--listen", "127.0.0.1:0", *HTTP)
    connection = http.client.HTTPConnection("127.0.0.1", port_of(server, 1), timeout=bare_client.SECONDS)
    for _ in range(3):
        resized(connection)
        with socket.create_connection(("127.0.0.1", server.port), bare_client.SECONDS) as sock:
            sock.sendall(bare_client.header(len(IMAGE), 20, 10) + IMAGE)
            assert bare_client.read_answer(sock).size > 0
    connection.close()
    wait_until(lambda: server.log.count('"protocol":"http","kind":"resize","status":200') == 3, "three lines")
    assert server.stop() == 0


def test_a_unix_socket(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start_server("--workers", "1", "--listen", f"http+unix:{path}")
    assert server.listeners == [f"http+unix:{path}"]
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    resized(connection)
    connection.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


def test_https(start_server: StartServer, lab: Lab) -> None:
    certificate, key = lab.server()
    files = ("--tls-cert", str(certificate), "--tls-key", str(key))
    listeners = ("--listen", "https://127.0.0.1:0", "--listen", "tls://127.0.0.1:0")
    server = start_server("--workers", "1", *listeners, *files)
    context = ssl.create_default_context(cafile=str(lab.ca))
    context.set_alpn_protocols(["h2", "http/1.1"])
    connection = http.client.HTTPSConnection(
        "127.0.0.1", port_of(server), context=context, timeout=bare_client.SECONDS
    )
    resized(connection)
    assert isinstance(connection.sock, ssl.SSLSocket)
    assert connection.sock.selected_alpn_protocol() == "http/1.1"
    large = IMAGE + bytes(20_000_000)
    connection.request("POST", "/resize?width=20&height=10", large)
    response = connection.getresponse()
    assert (response.status, response.read()[:3]) == (200, b"\xff\xd8\xff")
    connection.close()
    # What it says in plain text is HTTP as well.
    plain = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=bare_client.SECONDS)
    plain.request("GET", "/formats")
    assert (plain.getresponse().status) == 400
    plain.close()
    with socket.create_connection(("127.0.0.1", port_of(server, 1)), bare_client.SECONDS) as sock:
        other = ssl.create_default_context(cafile=str(lab.ca))
        other.set_alpn_protocols(["http/1.1"])
        with other.wrap_socket(sock, server_hostname="127.0.0.1") as secured:
            assert secured.selected_alpn_protocol() is None
    assert '"protocol":"http+tls"' in server.log


def test_the_header_of_a_proxy(start_server: StartServer) -> None:
    server = start_server("--workers", "1", *HTTP, "--trusted-proxies", "127.0.0.1")
    with socket.create_connection(("127.0.0.1", port_of(server)), bare_client.SECONDS) as sock:
        sock.sendall(PROXY_HEADER + b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert read_to_end(sock).startswith(b"HTTP/1.1 404 ")
    wait_until(lambda: '"peer":"7.7.7.7:77"' in server.log, "the line")


def test_the_header_of_a_proxy_before_tls(start_server: StartServer, lab: Lab) -> None:
    certificate, key = lab.server()
    files = ("--tls-cert", str(certificate), "--tls-key", str(key))
    listener = ("--listen", "https://127.0.0.1:0")
    server = start_server("--workers", "1", *listener, *files, "--trusted-proxies", "127.0.0.1")
    context = ssl.create_default_context(cafile=str(lab.ca))
    with socket.create_connection(("127.0.0.1", port_of(server)), bare_client.SECONDS) as sock:
        sock.sendall(PROXY_HEADER)
        with context.wrap_socket(sock, server_hostname="127.0.0.1") as secured:
            secured.sendall(b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert read_to_end(secured).startswith(b"HTTP/1.1 404 ")
    wait_until(lambda: '"peer":"7.7.7.7:77"' in server.log, "the line")
    assert '"protocol":"http+tls"' in server.log


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_client_that_ends_its_sending_side_gets_its_reply(
    start_server: StartServer, lab: Lab, scheme: str
) -> None:
    certificate, key = lab.server()
    files = ("--tls-cert", str(certificate), "--tls-key", str(key))
    server = start_server("--workers", "1", "--listen", f"{scheme}://127.0.0.1:0", *files)
    head = b"POST /resize?width=20 HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(IMAGE)
    with socket.create_connection(("127.0.0.1", port_of(server)), bare_client.SECONDS) as sock:
        if scheme == "http":
            sock.sendall(head + IMAGE)
            sock.shutdown(socket.SHUT_WR)
            reply = read_to_end(sock)
        else:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            context = ssl.create_default_context(cafile=str(lab.ca))
            secured = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
            through(sock, incoming, outgoing, secured.do_handshake)
            secured.write(head + IMAGE)
            with contextlib.suppress(ssl.SSLWantReadError):
                secured.unwrap()  # which says that nothing more is sent
            sock.sendall(outgoing.read())
            sock.shutdown(socket.SHUT_WR)
            incoming.write(read_to_end(sock))
            reply = b""
            with contextlib.suppress(ssl.SSLZeroReturnError):
                while piece := secured.read(65_536):
                    reply += piece
    assert b"HTTP/1.1 200 OK\r\n" in reply


def through(
    sock: socket.socket, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, step: Callable[[], None]
) -> None:
    while True:
        try:
            step()
        except ssl.SSLWantReadError:
            sock.sendall(outgoing.read())
            incoming.write(sock.recv(65_536))
        else:
            sock.sendall(outgoing.read())
            return


def read_to_end(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(65_536):
        data += piece
    return data


@pytest.mark.skipif(sys.platform != "linux", reason="several gateways need Linux")
def test_several_gateways(start_server: StartServer) -> None:
    server = start_server("--gateways", "2", "--workers", "2", *HTTP)
    for _ in range(8):
        connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=bare_client.SECONDS)
        resized(connection)
        connection.close()
    assert server.stop() == 0


def test_a_successor_gets_the_listener(start_server: StartServer, tmp_path: Path) -> None:
    control = ("--control", str(tmp_path / "control"))
    listeners = (*HTTP, "--listen", "127.0.0.1:0")
    first = start_server("--workers", "1", *control, *listeners)
    connection = http.client.HTTPConnection("127.0.0.1", port_of(first), timeout=bare_client.SECONDS)
    resized(connection)
    second = start_server("--workers", "1", *control, *listeners, "--takeover")
    assert second.listeners == first.listeners
    assert first.process.wait(bare_client.SECONDS) == 0
    connection.close()
    connection = http.client.HTTPConnection("127.0.0.1", port_of(second), timeout=bare_client.SECONDS)
    resized(connection)
    connection.close()


def test_a_successor_that_knows_no_http_does_not_get_it(start_server: StartServer, tmp_path: Path) -> None:
    control = tmp_path / "control"
    server = start_server("--workers", "1", "--control", str(control), *HTTP)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(bare_client.SECONDS)
        sock.connect(str(control))
        sock.sendall(b'{"kind": "take", "format": 1, "server": "vipsrv/0.1"}\n')
        answer = sock.recv(4096)
    assert b'"error"' in answer
    assert b"listens for http" in answer
    connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=bare_client.SECONDS)
    resized(connection)
    connection.close()


@pytest.mark.parametrize(("name", "tls"), [("http", False), ("api-http", False), ("https", True)])
def test_sockets_of_systemd(lab: Lab, name: str, *, tls: bool) -> None:
    certificate, key = lab.server()
    files = ("--tls-cert", str(certificate), "--tls-key", str(key))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        environment = {"LISTEN_FDNAMES": name}
        with RunningServer("--workers", "1", *files, environment=environment, sockets=[listener]) as server:
            assert server.listeners[0].startswith("https://" if tls else "http://")


def test_a_client_of_the_binary_protocol_is_told_so(start_server: StartServer) -> None:
    server = start_server("--workers", "1", *HTTP)
    port = port_of(server)
    with Client(port=port) as client, pytest.raises(ProtocolError, match="speaks HTTP"):
        client.ping()
    with (
        Client(port=port) as client,
        pytest.raises(ProtocolError, match="speaks HTTP, not the protocol of vipsrv"),
    ):
        client.resize(IMAGE, width=9, height=9)
    with pytest.raises(ValueError, match="is an address for HTTP"):
        Client(address=server.listeners[0])
    command = [str(Path(sys.executable).with_name("vipsrv-client")), "--formats", "--host"]
    ended = subprocess.run([*command, server.listeners[0]], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "is an address for HTTP" in ended.stderr
    ended = subprocess.run(
        [*command, "127.0.0.1", "--port", str(port)], capture_output=True, text=True, check=False
    )
    assert "speaks HTTP" in ended.stderr


def test_http_at_the_port_of_the_binary_protocol(start_server: StartServer) -> None:
    server = start_server("--workers", "1")
    with socket.create_connection(("127.0.0.1", server.port), bare_client.SECONDS) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert bare_client.read_answer(sock).size == 0
    wait_until(lambda: "seems to speak HTTP, which this address does not" in server.log, "a line that helps")


def test_an_address_of_the_operator_is_no_listener() -> None:
    ended = serve("--listen", "ops://127.0.0.1:0")
    assert ended.returncode == 2
    assert "--ops-listen" in ended.stderr
