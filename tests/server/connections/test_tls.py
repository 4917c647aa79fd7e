"""Connections with TLS on real sockets: the handshake, what is refused, and that all bytes arrive."""

import asyncio
import contextlib
import json
import logging
import os
import ssl
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from tests.protocol.test_proxy_protocol import FOUR, PROXY, TCP4, header
from tests.server.fakes import MANY, FakeWorkers, content, make_context, only_account, succeed
from tests.server.identity.records import add
from tests.support.certificates import Lab
from vipsrv.protocol import HEADER, V1_REPLY, V1_REQUEST, Header, Kind, pack_message
from vipsrv.server.access import Access
from vipsrv.server.address_list import AddressList
from vipsrv.server.connections.binary import BinaryConnection
from vipsrv.server.connections.login import MOST_HELD
from vipsrv.server.connections.proxy_header import ProxiedConnection
from vipsrv.server.connections.served import DRAIN_SECONDS
from vipsrv.server.connections.states import ConnectionState
from vipsrv.server.connections.tls_handshake import (
    HANDSHAKE_SECONDS,
    MAX_HANDSHAKE_SIZE,
    TRANSITIONS,
    HandshakeState,
    TlsConnection,
)
from vipsrv.server.connections.tls_transport import READ_SIZE, TlsTransport
from vipsrv.server.context import ServerContext
from vipsrv.server.identity import Identities
from vipsrv.server.settings import ServerSettings
from vipsrv.server.tls import ServerCertificates, certificate_identity
from vipsrv.worker_config import IN_MEMORY_SIZE

SECONDS = 10
PING = pack_message(Kind.PING, 7)
PONG = pack_message(Kind.PING | 0x80, 7, status=200)
LARGE = IN_MEMORY_SIZE + 12_345


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@dataclass
class Listening:
    """A listener with TLS, and what its connections use."""

    context: ServerContext
    workers: FakeWorkers
    address: tuple[str, int]
    made: list[BinaryConnection]
    trusting: ssl.SSLContext
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect without TLS."""
        reader, writer = await asyncio.open_connection(*self.address)
        self.writers.append(writer)
        return reader, writer

    async def connect(
        self, context: ssl.SSLContext | None = None, session: ssl.SSLSession | None = None
    ) -> "Client":
        reader, writer = await self.open()
        return await Client.shake_hands(reader, writer, context or self.trusting, session=session)


class Client:
    """A client whose TLS is its own, so that it can do what those of Python's event loops cannot."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext
    ) -> None:
        self.reader, self.writer = reader, writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    @classmethod
    async def shake_hands(
        cls,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        context: ssl.SSLContext,
        *,
        piece: int = MANY,
        session: ssl.SSLSession | None = None,
    ) -> "Client":
        client = cls(reader, writer, context)
        if session is not None:
            client.tls.session = session
        while True:
            try:
                client.tls.do_handshake()
            except ssl.SSLWantReadError:
                await client.flush(piece)
                received = await reader.read(MANY)
                if not received:
                    raise ConnectionError("the server closed during the handshake") from None
                client._incoming.write(received)
            else:
                await client.flush(piece)
                return client

    async def flush(self, piece: int = MANY) -> None:
        data = self._outgoing.read()
        for start in range(0, len(data), piece):
            self.writer.write(data[start : start + piece])
            await self.writer.drain()
            if piece < MANY:
                await asyncio.sleep(0)

    async def send(self, data: bytes, *, piece: int = MANY) -> None:
        view = memoryview(data)
        while view:
            view = view[self.tls.write(view[:READ_SIZE]) :]
            await self.flush(piece)

    async def receive(self, size: int = -1) -> bytes:
        """The next ``size`` bytes, or all to the end."""
        data = bytearray()
        while size < 0 or len(data) < size:
            try:
                part = self.tls.read(MANY if size < 0 else size - len(data))
            except ssl.SSLWantReadError:
                received = await self.reader.read(MANY)
                if not received:
                    break
                self._incoming.write(received)
                continue
            except ssl.SSLZeroReturnError:
                break
            if not part:
                break
            data += part
        return bytes(data)

    async def end(self) -> None:
        """Send the end of our bytes, within TLS."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        await self.flush()


@asynccontextmanager
async def listening(
    folder: Path, lab: Lab, *, proxies: tuple[str, ...] = (), client_ca: Path | None = None, **limits: Any
) -> AsyncIterator[Listening]:
    workers = FakeWorkers(free=MANY)
    context = make_context(folder, workers, **limits)
    certificate, key = lab.server()
    settings = ServerSettings(tls_cert=certificate, tls_key=key, tls_client_ca=client_ca)
    certificates = ServerCertificates(settings)
    made: list[BinaryConnection] = []

    def connection(peer: object = None) -> BinaryConnection:
        made.append(BinaryConnection(context, peer=peer))
        return made[-1]

    def secured(peer: object = None) -> TlsConnection:
        return TlsConnection(context, certificates, connection, peer)

    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, complaint: complaints.append(complaint))
    trusted = AddressList(proxies)
    listener = await loop.create_server(
        (lambda: ProxiedConnection(context, trusted, secured)) if proxies else secured, "127.0.0.1", 0
    )
    async with asyncio.timeout(SECONDS):
        address = listener.sockets[0].getsockname()
        server = Listening(context, workers, address, made, lab.trusting())
        try:
            yield server
        finally:
            for writer in server.writers:
                writer.transport.abort()
            await asyncio.gather(*(one.wait_closed() for one in server.writers), return_exceptions=True)
            for one in context.connections:
                one.abort()
            await context.connections.wait_until_closed(SECONDS)
            listener.close()
            context.spool.close()
    assert not complaints


async def until_closed(context: ServerContext) -> None:
    await context.connections.wait_until_closed(SECONDS)
    assert not list(context.connections)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The messages of the handshakes in the log."""
    caplog.set_level(logging.INFO)
    found: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler = Collect()
    logger = logging.getLogger("vipsrv.server.connections.tls_handshake")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def error_of(reply: bytes) -> tuple[int, str]:
    head = Header.unpack(reply[: HEADER.size])
    meta = json.loads(reply[HEADER.size :])
    return head.status, meta["message"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_large_image_and_a_large_result(tmp_path: Path, lab: Lab, version: ssl.TLSVersion) -> None:
    async with listening(tmp_path, lab) as server:
        server.trusting.maximum_version = version
        client = await server.connect()
        image = os.urandom(LARGE)
        meta = {"width": 9, "height": 9}
        await client.send(pack_message(Kind.RESIZE, 1, meta, body_size=LARGE) + image + PING)
        assert await client.receive(len(PONG)) == PONG
        while not server.workers.jobs:
            await asyncio.sleep(0.001)
        (job,) = server.workers.jobs
        assert content(job.image) == image
        succeed(job, server.context.spool, size=LARGE)
        *_, meta_size, body_size = HEADER.unpack(await client.receive(HEADER.size))
        await client.receive(meta_size)
        assert body_size == LARGE
        assert await client.receive(LARGE) == bytes(LARGE)
        await client.end()
        assert await client.receive() == b""
        await until_closed(server.context)


@pytest.mark.parametrize("piece", [1, 7])
async def test_bytes_may_arrive_in_any_pieces(tmp_path: Path, lab: Lab, piece: int) -> None:
    async with listening(tmp_path, lab) as server:
        reader, writer = await server.open()
        client = await Client.shake_hands(reader, writer, server.trusting, piece=piece)
        await client.send(PING * 3, piece=piece)
        assert await client.receive(len(PONG) * 3) == PONG * 3


async def test_requests_may_come_with_the_end_of_the_handshake(tmp_path: Path, lab: Lab) -> None:
    async with listening(tmp_path, lab) as server:
        reader, writer = await server.open()
        client = Client(reader, writer, server.trusting)
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        await client.flush()
        client._incoming.write(await reader.read(MANY))
        client.tls.do_handshake()
        client.tls.write(PING)
        await client.flush()  # the end of the handshake and the request together
        assert await client.receive(len(PONG)) == PONG


PLAIN = [
    V1_REQUEST.pack(1000, 80, 60) + bytes(1000),
    V1_REQUEST.pack(1 << 31, 80, 60),
    PING,
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x16\x00" + bytes(100),  # begins as a record of TLS, and is none
]


@pytest.mark.parametrize("data", PLAIN)
async def test_plain_bytes_are_refused_and_nothing_is_done(
    tmp_path: Path, lab: Lab, lines: list[str], data: bytes
) -> None:
    async with listening(tmp_path, lab) as server:
        reader, writer = await server.open()
        writer.write(data)
        answer = await reader.read()
        if data[0] == 0x16:
            assert answer[:1] in {b"", b"\x15"}  # an alert, if OpenSSL sends one
        else:
            assert error_of(answer) == (400, "this address takes TLS only; use --tls (tls=True)")
        writer.close()
        await until_closed(server.context)
        assert lines == ["the TLS handshake of 127.0.0.1 failed: the client does not speak TLS"]
        assert server.context.tls_failures == 1
        assert not server.made
        assert not server.workers.jobs


async def test_an_old_client_s_refusal_survives_the_rest_of_its_upload(tmp_path: Path, lab: Lab) -> None:
    async with listening(tmp_path, lab) as server:
        reader, writer = await server.open()
        writer.write(V1_REQUEST.pack(LARGE, 80, 60))
        await asyncio.sleep(0)
        for _ in range(8):
            writer.write(bytes(LARGE // 8))
            await writer.drain()
        assert error_of(await reader.read())[0] == 400
        writer.close()
        await until_closed(server.context)


def hello(size: int, fragments: int) -> bytes:
    """A ClientHello that announces ``size`` bytes, in so many records of 16,000 bytes."""
    start = b"\x01" + size.to_bytes(3) + bytes.fromhex("0303")
    data = start + bytes(fragments * 16_000 - len(start))
    return b"".join(
        bytes.fromhex("160301") + (16_000).to_bytes(2) + data[at : at + 16_000]
        for at in range(0, len(data), 16_000)
    )


async def test_a_handshake_without_an_end_is_cut_off(tmp_path: Path, lab: Lab, lines: list[str]) -> None:
    async with listening(tmp_path, lab) as server:
        reader, writer = await server.open()
        writer.write(hello(100_000, 4))
        await reader.read()
        writer.close()
        await until_closed(server.context)
        assert lines == [
            f"the TLS handshake of 127.0.0.1 failed: more than {MAX_HANDSHAKE_SIZE} bytes without an end"
        ]


@pytest.mark.parametrize("begun", [False, True])
async def test_a_handshake_has_a_timeout(tmp_path: Path, lab: Lab, lines: list[str], *, begun: bool) -> None:
    async with listening(tmp_path, lab) as server:
        reader, writer = await server.open()
        if begun:
            writer.write(hello(100, 1)[:50])
        connection = await only_handshake(server.context, begun=begun)
        assert server.context.connections.due(time.monotonic()) == []  # nothing to do until then
        connection.watch(time.monotonic() + HANDSHAKE_SECONDS + 1)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        await until_closed(server.context)
        assert lines == [
            f"the TLS handshake of 127.0.0.1 failed: it was not done within {HANDSHAKE_SECONDS:g} s"
        ]


async def only_handshake(context: ServerContext, *, begun: bool) -> TlsConnection:
    wanted = HandshakeState.HANDSHAKE if begun else HandshakeState.WAITING
    while True:
        for connection in cast("list[TlsConnection]", list(context.connections)):
            if connection.state is wanted:
                return connection
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_goes_is_logged_only_if_it_had_begun(
    tmp_path: Path, lab: Lab, lines: list[str], *, begun: bool
) -> None:
    async with listening(tmp_path, lab) as server:
        _, writer = await server.open()
        if begun:
            writer.write(hello(100, 1)[:50])
        await only_handshake(server.context, begun=begun)
        writer.close()
        await until_closed(server.context)
        gone = "the client closed the connection; perhaps it does not trust the certificate"
        assert lines == ([f"the TLS handshake of 127.0.0.1 failed: {gone}"] if begun else [])


async def test_a_client_that_trusts_others_is_logged(tmp_path: Path, lab: Lab, lines: list[str]) -> None:
    async with listening(tmp_path, lab) as server:
        stranger = Lab(tmp_path / "stranger").trusting()
        reader, writer = await server.open()
        client = Client(reader, writer, stranger)
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        await client.flush()
        client._incoming.write(await reader.read(MANY))
        with pytest.raises(ssl.SSLCertVerificationError):
            client.tls.do_handshake()
        await client.flush()
        await reader.read()
        writer.close()
        await until_closed(server.context)
        assert lines == ["the TLS handshake of 127.0.0.1 failed: the client does not trust the certificate"]


async def test_an_old_version_of_tls_is_refused(tmp_path: Path, lab: Lab, lines: list[str]) -> None:
    async with listening(tmp_path, lab) as server:
        server.trusting.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match="deprecated"):
            server.trusting.maximum_version = ssl.TLSVersion.TLSv1_1
        server.trusting.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await server.connect()
        assert lines == ["the TLS handshake of 127.0.0.1 failed: the client speaks no version from TLS 1.2"]


@pytest.mark.parametrize("shut_down", [False, True])
async def test_an_old_client_may_shut_down_its_side_before_the_reply(
    tmp_path: Path, lab: Lab, *, shut_down: bool
) -> None:
    async with listening(tmp_path, lab) as server:
        client = await server.connect()
        await client.send(V1_REQUEST.pack(1000, 80, 60) + bytes(1000))
        await client.end()
        if shut_down:
            client.writer.write_eof()
        while not server.workers.jobs:
            await asyncio.sleep(0.001)
        succeed(server.workers.jobs[0], server.context.spool, size=LARGE)
        assert await client.receive() == V1_REPLY.pack(LARGE) + bytes(LARGE)
        await until_closed(server.context)


async def test_a_client_may_end_without_the_end_of_tls(tmp_path: Path, lab: Lab) -> None:
    async with listening(tmp_path, lab) as server:
        client = await server.connect()
        await client.send(PING)
        client.writer.write_eof()
        assert await client.receive() == PONG
        await until_closed(server.context)


async def test_a_reply_that_is_not_read_stays_in_the_spool(tmp_path: Path, lab: Lab) -> None:
    async with listening(tmp_path, lab) as server:
        client = await server.connect()
        await client.send(pack_message(Kind.RESIZE, 1, {"width": 9, "height": 9}, body_size=10) + bytes(10))
        while not server.workers.jobs:
            await asyncio.sleep(0.001)
        full = server.context.spool.memory_left + 10
        size = 7_000_000
        succeed(server.workers.jobs[0], server.context.spool, size=size)
        transport = cast("TlsTransport", server.made[0]._transport)
        assert transport.get_write_buffer_size() > 0
        below = transport._below.get_write_buffer_size()
        assert below < size / 4  # it has not been encrypted as a whole
        assert full - server.context.spool.memory_left > size / 2
        *_, meta_size, body_size = HEADER.unpack(await client.receive(HEADER.size))
        await client.receive(meta_size)
        assert await client.receive(body_size) == bytes(size)
        while server.context.spool.memory_left < full:
            await asyncio.sleep(0.001)


async def test_bytes_that_cannot_be_decrypted_end_the_connection(
    tmp_path: Path, lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with listening(tmp_path, lab) as server:
        client = await server.connect()
        client.writer.write(bytes.fromhex("1703030100") + bytes(256))
        await client.reader.read()
        client.writer.close()
        await until_closed(server.context)
    assert [one.getMessage() for one in caplog.records if "tls_transport" in one.name] == [
        "closing a connection: TLS failed: decryption failed or bad record mac"
    ]


async def test_one_connection_too_many_is_told_so(tmp_path: Path, lab: Lab) -> None:
    async with listening(tmp_path, lab, connections=1) as server:
        first = await server.connect()
        meta = pack_message(Kind.RESIZE, 1, {"width": 9, "height": 9}, body_size=10)
        await first.send(meta)
        while not server.made or server.made[0].incoming is None:
            await asyncio.sleep(0.001)
        second = await server.connect()
        await second.send(meta + bytes(10))
        assert error_of(await second.receive())[0] == 429


async def test_a_drain_ends_a_handshake_soon(tmp_path: Path, lab: Lab, lines: list[str]) -> None:
    async with listening(tmp_path, lab) as server:
        reader, writer = await server.open()
        connection = await only_handshake(server.context, begun=False)
        server.context.draining = True
        connection.drain()
        client = await Client.shake_hands(reader, writer, server.trusting)  # it was on its way
        await client.send(PING)
        head = await client.receive(HEADER.size)
        assert Header.unpack(head).status == 503
        reader, writer = await server.open()
        connection = await only_handshake(server.context, begun=False)
        connection.watch(time.monotonic() + DRAIN_SECONDS + 1)
        assert await reader.read() == b""
        writer.close()
        assert not lines


async def test_the_header_of_a_proxy_comes_before_the_handshake(tmp_path: Path, lab: Lab) -> None:
    async with listening(tmp_path, lab, proxies=("127.0.0.0/8",)) as server:
        reader, writer = await server.open()
        writer.write(header(PROXY, TCP4, FOUR))
        client = await Client.shake_hands(reader, writer, server.trusting)
        await client.send(PING)
        assert await client.receive(len(PONG)) == PONG
        assert only_account(server.context.accounts, "192.0.2.7").flows
        writer.close()
        await until_closed(server.context)


@pytest.mark.parametrize("name", ["spiffe://lab/alice", "alice@example.org", "alice.example.org"])
async def test_a_client_is_known_by_its_certificate(tmp_path: Path, lab: Lab, name: str) -> None:
    async with listening(tmp_path, lab, client_ca=lab.ca) as server:
        client = await server.connect(lab.trusting(client=lab.client(name)))
        await client.send(PING)
        assert await client.receive(len(PONG)) == PONG
        assert certificate_identity(server.made[0]._transport) == name


async def test_before_a_login_little_is_read_at_once(tmp_path: Path, lab: Lab) -> None:
    tokens = tmp_path / "tokens.toml"
    token = add(tokens)
    async with listening(tmp_path, lab) as server:
        server.context.access = Access(Identities(tokens))
        client = await server.connect()
        await client.send(PING)
        assert await client.receive(len(PONG)) == PONG
        transport = cast("TlsTransport", server.made[0]._transport)
        assert len(transport.get_buffer(-1)) == MOST_HELD
        await client.send(pack_message(Kind.HELLO, 1, {"token": token.text}) + PING)
        while server.made[0].state is not ConnectionState.OPEN:
            await client.receive(1)
        assert len(transport.get_buffer(-1)) == READ_SIZE


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_is_not_resumed_with_a_certificate_that_has_expired(
    tmp_path: Path,
    lab: Lab,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    version: ssl.TLSVersion,
) -> None:
    async with listening(tmp_path, lab, client_ca=lab.ca) as server:
        context = lab.trusting(client=lab.client("alice.example"))
        context.maximum_version = version
        session = None
        for _ in range(2):
            client = await server.connect(context, session)
            await client.send(PING)
            assert await client.receive(len(PONG)) == PONG
            assert client.tls.session_reused is (session is not None)
            session = client.tls.session
        assert session is not None
        later = time.time() + 31 * 86_400
        monkeypatch.setattr(time, "time", lambda: later)
        client = await server.connect(context, session)
        assert client.tls.session_reused
        await client.send(PING)
        assert error_of(await client.receive()) == (401, "the client's certificate has expired")
        assert lines == ["the TLS handshake of 127.0.0.1 failed: the client's certificate has expired"]
        assert len(server.made) == 2


@pytest.mark.parametrize(
    ("which", "reason"),
    [
        ("none", "the client showed no certificate"),
        ("foreign", "the client's certificate is not accepted: unable to get local issuer certificate"),
        ("nameless", "the client's certificate names nobody: it has no URI, e-mail address or DNS name"),
        ("of a server", "the client's certificate is not accepted: unsuitable certificate purpose"),
    ],
)
async def test_a_client_without_a_proper_certificate_is_refused(
    tmp_path: Path, lab: Lab, lines: list[str], which: str, reason: str
) -> None:
    own: dict[str, tuple[Path, Path] | None] = {
        "none": None,
        "foreign": Lab(tmp_path / "foreign").client("alice"),
        "nameless": lab.client(None),
        "of a server": lab.server("other"),
    }
    async with listening(tmp_path, lab, client_ca=lab.ca) as server:
        client = await server.connect(lab.trusting(client=own[which]))
        await client.send(PING)
        if which == "nameless":
            assert error_of(await client.receive()) == (401, reason)
        else:
            with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
                await client.receive()
        client.writer.close()
        await until_closed(server.context)
        assert lines == [f"the TLS handshake of 127.0.0.1 failed: {reason}"]
        assert not server.made


def test_every_state_of_a_handshake_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(HandshakeState)


async def test_an_impossible_transition_is_a_bug(tmp_path: Path, lab: Lab) -> None:
    async with listening(tmp_path, lab) as server:
        await server.open()
        connection = await only_handshake(server.context, begun=False)
        with pytest.raises(RuntimeError, match="waiting cannot become handed over"):
            connection._enter(HandshakeState.HANDED_OVER)


def test_the_first_bytes_of_tls_are_no_request_of_version_1() -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    size, width, height = struct.unpack("!III", outgoing.read(12))
    assert size >> 16 == 0x1603
    assert width > 65_535
    assert height > 65_535
