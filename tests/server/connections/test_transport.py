"""Bodies over transports that are not plain sockets: they are copied, and arrive just the same."""

import asyncio
import os
import select
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.server.fakes import MANY, FakeWorkers, content, make_context, succeed
from vipsrv.protocol import HEADER, Kind, pack_message
from vipsrv.server.connections.binary import BinaryConnection
from vipsrv.server.connections.transport import acknowledge_now, has_hung_up, has_tls, socket_of, was_reset
from vipsrv.worker_config import IN_MEMORY_SIZE

IMAGE_SIZE = IN_MEMORY_SIZE + 12_345
RESULT_SIZE = IN_MEMORY_SIZE + 678


class TransportWithoutSocket:
    """Passes everything on, but does not tell that there is a socket."""

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default if name == "socket" else self._transport.get_extra_info(name, default)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class ConnectionWithoutSocket(BinaryConnection):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        hidden: Any = TransportWithoutSocket(transport)
        super().connection_made(hidden)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate and its key, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the openssl command makes the certificate")
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    made = subprocess.run(
        [
            openssl,
            *[
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-subj",
                "/CN=test",
                "-days",
                "2",
                "-keyout",
                "-",
                "-out",
                "-",
            ],
        ],
        check=True,
        capture_output=True,
    )
    path.write_bytes(made.stdout)
    return path


async def resize_once(
    folder: Path,
    connection: type[BinaryConnection],
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
) -> None:
    """Send a large image, and read a large result."""
    workers = FakeWorkers(free=MANY)
    context = make_context(folder, workers)
    loop = asyncio.get_running_loop()
    server_side, client_side = tls or (None, None)
    listener = await loop.create_server(lambda: connection(context), "127.0.0.1", 0, ssl=server_side)
    image = os.urandom(IMAGE_SIZE)
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname(), ssl=client_side)
        meta = {"width": 9, "height": 9}
        writer.write(pack_message(Kind.RESIZE, 1, meta, body_size=IMAGE_SIZE) + image)
        ping = pack_message(Kind.PING, 2)
        writer.write(ping)
        while not workers.jobs:
            await asyncio.sleep(0.001)
        assert content(workers.jobs[0].image) == image
        pong = pack_message(Kind.PING | 0x80, 2, status=200)
        assert await reader.readexactly(len(pong)) == pong
        succeed(workers.jobs[0], context.spool, size=RESULT_SIZE)
        *_, meta_size, body_size = HEADER.unpack(await reader.readexactly(HEADER.size))
        await reader.readexactly(meta_size)
        assert body_size == RESULT_SIZE
        assert await reader.readexactly(body_size) == bytes(RESULT_SIZE)
        writer.close()
        with suppress(ssl.SSLError):  # asyncio's client may find a rest of the handshake when it shuts down
            await writer.wait_closed()
        await context.connections.wait_until_closed(20)
    assert not list(context.connections)
    listener.close()
    context.spool.close()


@pytest.fixture
def no_splice(monkeypatch: pytest.MonkeyPatch) -> None:
    def spliced(*_: object, **__: object) -> int:
        raise AssertionError("these bytes must not be spliced")

    monkeypatch.setattr(os, "splice", spliced, raising=False)


async def test_over_a_plain_socket(tmp_path: Path) -> None:
    await resize_once(tmp_path, BinaryConnection)


@pytest.mark.usefixtures("no_splice")
async def test_over_a_transport_that_has_no_socket(tmp_path: Path) -> None:
    await resize_once(tmp_path, ConnectionWithoutSocket)


@pytest.mark.usefixtures("no_splice")
async def test_over_tls(tmp_path: Path, certificate: Path) -> None:
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate)
    client_side = ssl.create_default_context(cafile=str(certificate))
    client_side.check_hostname = False
    await resize_once(tmp_path, BinaryConnection, (server_side, client_side))


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="only Linux delays on demand")
async def test_the_first_part_of_a_message_is_acknowledged_at_once(tmp_path: Path) -> None:
    """A client with Nagle's algorithm sends the rest only when the first part is acknowledged."""
    context = make_context(tmp_path, FakeWorkers())
    connections: list[BinaryConnection] = []
    sockets: list[Any] = []

    class Connection(BinaryConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            connections.append(self)
            sockets.append(transport.get_extra_info("socket"))
            super().connection_made(transport)

    def acknowledges_at_once() -> bool:
        return bool(sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK))

    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Connection(context), "127.0.0.1", 0)
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        writer.write(pack_message(Kind.PING, 1))
        await reader.readexactly(HEADER.size)
        sockets[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        writer.write(pack_message(Kind.PING, 2))
        await reader.readexactly(HEADER.size)
        assert not acknowledges_at_once()
        writer.write(pack_message(Kind.RESIZE, 3, {"width": 9, "height": 9}, body_size=1000))
        while connections[0].between_messages:
            await asyncio.sleep(0.001)
        assert acknowledges_at_once()
        writer.close()
        await writer.wait_closed()
        await context.connections.wait_until_closed(20)
    listener.close()
    context.spool.close()


def test_without_tcp_nothing_is_acknowledged() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        acknowledge_now(transport(socket=ours))
    acknowledge_now(transport(socket=ours))  # closed
    acknowledge_now(transport())


def transport(**extra: object) -> asyncio.BaseTransport:
    return asyncio.BaseTransport(extra)


def test_a_transport_with_tls_is_known_by_its_context_or_its_object() -> None:
    with socket.socket() as stream:
        assert not has_tls(transport(socket=stream))
        assert has_tls(transport(socket=stream, sslcontext=object()))
        assert has_tls(transport(socket=stream, ssl_object=object()))


def test_the_descriptor_of_a_transport_is_that_of_its_socket() -> None:
    with socket.socket() as stream:
        assert socket_of(transport(socket=stream)) == stream.fileno()
    assert socket_of(transport()) is None


def test_without_a_socket_nobody_is_seen_to_hang_up() -> None:
    assert not has_hung_up(transport())


def test_a_client_that_is_gone_is_told_from_one_that_still_reads() -> None:
    assert not was_reset(transport())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
        with ours, theirs:
            theirs.shutdown(socket.SHUT_WR)
            ours.sendall(b"read")
            assert theirs.recv(4) == b"read"
            assert not was_reset(transport(socket=ours))
            theirs.close()
            ours.sendall(b"unread")
            poll = select.poll()
            poll.register(ours.fileno(), 0)
            assert poll.poll(10_000), "the kernel has reset the connection"
            assert was_reset(transport(socket=ours))


@pytest.mark.parametrize("leave", [socket.socket.close, lambda sock: sock.shutdown(socket.SHUT_WR)])
def test_a_client_that_hangs_up_is_seen_behind_its_unread_bytes(
    leave: Callable[[socket.socket], None],
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"unread")
        assert not has_hung_up(transport(socket=ours))
        leave(theirs)
        assert has_hung_up(transport(socket=ours))
