"""Connections of proxies that name their clients, on real sockets."""

import asyncio
import shutil
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.protocol.test_proxy_protocol import FOUR, LOCAL, PROXY, SIX, TCP4, TCP6, TLV, UNIX, header
from tests.server.fakes import FakeWorkers, make_context, only_account
from vipsrv.protocol import HEADER, Kind, pack_message
from vipsrv.server.accounts import Accounts, Flow
from vipsrv.server.address_list import AddressList
from vipsrv.server.connections.binary import BinaryConnection
from vipsrv.server.connections.proxy_header import HEADER_SECONDS, ProxiedConnection
from vipsrv.server.connections.served import DRAIN_SECONDS
from vipsrv.server.context import ServerContext

SECONDS = 20
PING = pack_message(Kind.PING, 7)


@asynccontextmanager
async def listening(folder: Path, *trusted: str) -> AsyncIterator[tuple[ServerContext, tuple[str, int]]]:
    context = make_context(folder, FakeWorkers())
    proxies = AddressList(trusted)
    listener = await asyncio.get_running_loop().create_server(
        lambda: ProxiedConnection(context, proxies, lambda peer: BinaryConnection(context, peer=peer)),
        "127.0.0.1",
        0,
    )
    async with asyncio.timeout(SECONDS):
        yield context, listener.sockets[0].getsockname()
    for connection in context.connections:
        connection.abort()
    await context.connections.wait_until_closed(SECONDS)
    listener.close()
    context.spool.close()


@pytest.mark.parametrize(
    ("head", "key"),
    [
        (header(PROXY, TCP4, FOUR + TLV), "192.0.2.7"),
        (header(PROXY, TCP6, SIX), "2001:db8::/64"),
        (header(PROXY, UNIX, bytes(216)), "unix"),
        (header(PROXY, 0, b""), "127.0.0.1"),
        (header(LOCAL, 0, b""), "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("piece", [1, 1000])
async def test_a_trusted_proxy_names_its_client(tmp_path: Path, head: bytes, key: str, piece: int) -> None:
    async with listening(tmp_path, "10.0.0.0/8", "127.0.0.0/8") as (context, address):
        reader, writer = await asyncio.open_connection(*address)
        data = head + PING
        for start in range(0, len(data), piece):
            writer.write(data[start : start + piece])
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.readexactly(HEADER.size))[12:16] == b"\0\0\0\7"
        only_account(context.accounts, key)
        assert context.connections.served == 1
        writer.close()
        await context.connections.wait_until_closed(SECONDS)
        assert len(context.accounts) == 0


async def test_the_bytes_of_others_are_never_a_proxy_header(tmp_path: Path) -> None:
    async with listening(tmp_path, "10.0.0.0/8", "unix") as (context, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(PING)
        await reader.readexactly(HEADER.size)
        only_account(context.accounts, "127.0.0.1")
        other_reader, other = await asyncio.open_connection(*address)
        other.write(header(PROXY, TCP4, FOUR) + PING)
        # It is a version 1 request for an image of 218,762,506 bytes.
        for connection in context.connections:
            connection.watch(time.monotonic())
        while context.connections.served < 2:
            await asyncio.sleep(0)
        only_account(context.accounts, "127.0.0.1")
        for one in (writer, other):
            one.close()
        assert await other_reader.read() == b""


async def test_a_client_whose_address_is_unknown_is_not_one_of_a_unix_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop knows no address of a TCP client that had reset the connection before it was accepted."""
    keys: list[str] = []
    open_flow = Accounts.open_flow

    def open_and_note(self: Accounts, key: str) -> Flow:
        keys.append(key)
        return open_flow(self, key)

    monkeypatch.setattr(Accounts, "open_flow", open_and_note)
    context, accepted = make_context(tmp_path, FakeWorkers()), []
    trusted = AddressList(["unix"])

    def make() -> asyncio.BaseProtocol:
        accepted.append(True)
        return ProxiedConnection(context, trusted, lambda peer: BinaryConnection(context, peer=peer))

    with socket.create_server(("127.0.0.1", 0)) as listening_socket:
        with socket.create_connection(listening_socket.getsockname()) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(header(PROXY, TCP4, FOUR) + PING)
        listener = await asyncio.get_running_loop().create_server(make, sock=listening_socket)
        async with asyncio.timeout(SECONDS):
            while not accepted:
                await asyncio.sleep(0)
            await asyncio.sleep(0)  # its connection is made
            await context.connections.wait_until_closed(SECONDS)
        listener.close()
    context.spool.close()
    assert set(keys) <= {"127.0.0.1"}


@pytest.mark.parametrize("factory", ["binary", "proxied"])
async def test_a_transport_without_an_address_and_a_unix_socket_is_aborted(
    tmp_path: Path, factory: str
) -> None:
    context = make_context(tmp_path, FakeWorkers())
    transport = Mock(get_extra_info=lambda name: None)  # noqa: ARG005
    connection = (
        BinaryConnection(context)
        if factory == "binary"
        else ProxiedConnection(
            context, AddressList(["unix"]), lambda peer: BinaryConnection(context, peer=peer)
        )
    )
    connection.connection_made(transport)
    transport.abort.assert_called_once_with()
    connection.connection_lost(None)
    assert (len(context.accounts), list(context.connections)) == (0, [])
    context.spool.close()


@pytest.mark.parametrize("sent", [PING, b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n", b""])
async def test_a_trusted_proxy_without_a_header_is_disconnected(
    tmp_path: Path, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(tmp_path, "127.0.0.1") as (context, address):
        with socket.create_connection(address) as sock:
            sock.setblocking(False)
            sock.sendall(sent)
            while not sent and context.connections.served < 1:
                await asyncio.sleep(0)
            for connection in context.connections:
                connection.watch(time.monotonic() + (0 if sent else HEADER_SECONDS))
            try:
                assert await asyncio.get_running_loop().sock_recv(sock, 100) == b""
            except ConnectionResetError:
                pass
            else:
                assert not sent
        assert "closing a connection of the trusted proxy 127.0.0.1" in caplog.text


async def test_a_header_that_is_on_its_way_when_a_drain_begins_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(tmp_path, "127.0.0.1") as (context, address):
        reader, writer = await asyncio.open_connection(*address)
        silent, other = await asyncio.open_connection(*address)
        while context.connections.served < 2:
            await asyncio.sleep(0)
        context.draining = True
        for connection in context.connections:
            connection.drain()
        writer.write(header(PROXY, TCP4, FOUR) + PING)
        assert HEADER.unpack(await reader.readexactly(HEADER.size))[4] == 503
        for connection in context.connections:
            connection.watch(time.monotonic() + DRAIN_SECONDS)
        assert await silent.read() == b""
        for one in (writer, other):
            one.close()
    assert "closing a connection" not in caplog.text


async def test_it_works_behind_haproxy(tmp_path: Path) -> None:
    haproxy = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if haproxy is None:
        pytest.skip("haproxy is not installed (Debian: apt-get install haproxy)")
    async with listening(tmp_path, "127.0.0.1") as (context, (_, port)):
        front = tmp_path / "front.sock"
        configuration = tmp_path / "haproxy.cfg"
        with socket.create_server(("127.0.0.1", 0)) as free:
            tcp = free.getsockname()[1]
        configuration.write_text(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n"
            f"frontend front\n bind 127.0.0.1:{tcp}\n bind unix@{front}\n default_backend back\n"
            f"backend back\n server one 127.0.0.1:{port} send-proxy-v2 source 127.0.0.1\n"
        )
        process = await asyncio.create_subprocess_exec(
            haproxy, "-db", "-f", str(configuration), stderr=asyncio.subprocess.DEVNULL
        )
        try:
            while not front.exists():  # haproxy binds all listeners before it serves one
                assert process.returncode is None
                await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_connection("127.0.0.1", tcp, local_addr=("127.0.0.9", 0))
            writer.write(PING)
            await reader.readexactly(HEADER.size)
            only_account(context.accounts, "127.0.0.9")
            unix_reader, unix_writer = await asyncio.open_unix_connection(front)
            unix_writer.write(PING)
            await unix_reader.readexactly(HEADER.size)
            assert context.connections.served == 2
            for one in (writer, unix_writer):
                one.close()
        finally:
            process.terminate()
            await process.wait()
