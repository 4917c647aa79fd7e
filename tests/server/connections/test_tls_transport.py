"""The transport with TLS over a plain one made by the test, which gives and takes bytes as the test likes."""

import asyncio
import logging
import os
import random
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from tests.support.certificates import Lab
from vipsrv.address import Wire
from vipsrv.server.connections.tls_transport import ENCRYPT_SIZE, MOST_ANSWERS, READ_SIZE, TlsTransport
from vipsrv.server.settings import ServerSettings
from vipsrv.server.tls import ServerCertificates

MANY = 1 << 20
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Below(asyncio.Transport):
    """A plain transport whose kernel takes ``room`` bytes until the client reads."""

    def __init__(self, room: int = MANY) -> None:
        super().__init__()
        self.room = room
        self.sent = bytearray()  # taken by the kernel, and not read by the client yet
        self.buffered = bytearray()
        self.reads = True
        self.closing = self.lost = self.shut_down = False
        self.paused = False
        self.protocol: asyncio.BufferedProtocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = cast("asyncio.BufferedProtocol", protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ARG002 - the interface
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:  # noqa: ARG002
        assert high == 0

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def get_write_buffer_size(self) -> int:
        return len(self.buffered)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closing
        assert not self.shut_down
        self.buffered += data
        self.take()

    def take(self) -> None:
        """Let the kernel take what it has room for."""
        part = self.buffered[: max(0, self.room - len(self.sent))]
        self.sent += part
        del self.buffered[: len(part)]
        if self.buffered and not self.paused:
            self.paused = True
            self.protocol.pause_writing()
        elif self.paused and not self.buffered:
            self.paused = False
            self.protocol.resume_writing()
        if self.closing and not self.buffered:
            self.lose()

    def read_by_client(self, size: int) -> bytes:
        part = bytes(self.sent[:size])
        del self.sent[:size]
        if not self.lost:
            self.take()
        return part

    def deliver(self, data: bytes) -> None:
        buffer = memoryview(cast("memoryview", self.protocol.get_buffer(-1)))
        buffer[: len(data)] = data
        self.protocol.buffer_updated(len(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.shut_down = True

    def close(self) -> None:
        self.closing = True
        if not self.buffered:
            asyncio.get_running_loop().call_soon(self.lose)

    def abort(self) -> None:
        self.closing = True
        self.buffered.clear()
        asyncio.get_running_loop().call_soon(self.lose)

    def lose(self) -> None:
        if not self.lost:
            self.lost = True
            self.protocol.connection_lost(None)


class Above(asyncio.BufferedProtocol):
    """A connection that keeps what it gets, in buffers of random sizes."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.got = bytearray()
        self.events: list[str] = []
        self.may_write = True
        self.stays_open = True
        self.transport: TlsTransport
        self.buffer = memoryview(bytearray(100_000))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("TlsTransport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the interface
        return self.buffer[: self.dice.choice([1, 7, 1000, 16_384, 100_000])]

    def buffer_updated(self, nbytes: int) -> None:
        assert self.transport.is_reading()
        assert "end" not in self.events
        self.got += self.buffer[:nbytes]
        if not self.dice.randrange(4):
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self.transport.resume_reading)

    def eof_received(self) -> bool:
        self.events.append("end")
        return self.stays_open

    def pause_writing(self) -> None:
        self.may_write = False

    def resume_writing(self) -> None:
        self.may_write = True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the interface
        self.events.append("lost")


@dataclass
class Ends:
    """Both ends of a connection after the handshake."""

    below: Below
    above: Above
    transport: TlsTransport
    client: ssl.SSLObject
    downwards: ssl.MemoryBIO
    upwards: ssl.MemoryBIO
    received: bytearray = field(default_factory=bytearray)
    ended: bool = False

    def encrypted(self, data: bytes) -> bytes:
        view = memoryview(data)
        while view:
            view = view[self.client.write(view) :]
        return self.upwards.read()

    def client_reads(self, size: int = MANY) -> None:
        self.downwards.write(self.below.read_by_client(size))
        try:
            while part := self.client.read(MANY):
                self.received += part
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def certificates(lab: Lab) -> ServerCertificates:
    certificate, key = lab.server()
    return ServerCertificates(ServerSettings(tls_cert=certificate, tls_key=key))


def connected(
    lab: Lab,
    certificates: ServerCertificates,
    dice: random.Random,
    *,
    room: int = MANY,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    key_log: Path | None = None,
) -> Ends:
    """Make a handshake in memory, and a transport that goes on from there."""
    context = lab.trusting()
    context.maximum_version = version
    if key_log is not None:
        context.keylog_filename = str(key_log)
    upwards, downwards = ssl.MemoryBIO(), ssl.MemoryBIO()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(downwards, upwards, server_hostname="localhost")
    server = certificates.context(Wire.BINARY).wrap_bio(incoming, outgoing, server_side=True)
    done = False
    while not done:
        done = True
        for side, there, back in ((client, upwards, incoming), (server, outgoing, downwards)):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                done = False
            back.write(there.read())
    below, above = Below(room), Above(dice)
    transport = TlsTransport(below, server, incoming, outgoing)
    transport.start(above)
    return Ends(below, above, transport, client, downwards, upwards)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("seed", range(12))
async def test_all_bytes_arrive_in_order(
    lab: Lab, certificates: ServerCertificates, seed: int, version: ssl.TLSVersion
) -> None:
    dice = random.Random(seed)
    ends = connected(lab, certificates, dice, version=version, room=dice.choice([5000, 300_000, MANY]))
    upload, reply = dice.randbytes(900_000), dice.randbytes(1_100_000)
    plain, written, ciphertext = memoryview(upload), 0, b""
    closed = False
    while not ends.ended:
        size = dice.choice([1, 100, 20_000, READ_SIZE])
        if not ciphertext and plain:
            size = dice.randrange(1, 200_000)
            ciphertext, plain = ends.encrypted(bytes(plain[:size])), plain[size:]
        if ciphertext and ends.below.reads:
            ends.below.deliver(ciphertext[:size])
            ciphertext = ciphertext[size:]
        if ends.above.may_write and written < len(reply):
            count = dice.choice([1, 3000, 16_384, 400_000])
            pieces = [
                reply[at : at + count] for at in range(written, min(written + 4 * count, len(reply)), count)
            ]
            ends.transport.writelines(pieces)
            written += sum(map(len, pieces))
        assert len(ends.below.buffered) < 2 * ENCRYPT_SIZE + 20_000
        ends.client_reads(dice.choice([1000, 50_000, MANY]))
        await asyncio.sleep(0)
        if written == len(reply) and len(ends.above.got) == len(upload) and not closed:
            closed = True
            ends.transport.close()
    assert ends.above.got == upload
    assert ends.received == reply
    while not ends.below.lost:
        await asyncio.sleep(0)
    assert ends.above.events == ["lost"]


@pytest.mark.parametrize("says_so", [True, False])
async def test_the_end_comes_after_all_bytes(
    lab: Lab, certificates: ServerCertificates, *, says_so: bool
) -> None:
    ends = connected(lab, certificates, random.Random(1))
    data = os.urandom(50_000)
    ciphertext = ends.encrypted(data)
    if says_so:
        with pytest.raises(ssl.SSLWantReadError):
            ends.client.unwrap()
        ciphertext += ends.upwards.read()
    ends.transport.pause_reading()
    ends.below.deliver(ciphertext)  # was on its way
    ends.transport.resume_reading()
    # The plain transport may see the end before the transport has decrypted what it has.
    assert ends.below.protocol.eof_received()
    while "end" not in ends.above.events:
        await asyncio.sleep(0)
    assert ends.above.got == data
    ends.transport.write(b"a reply")
    ends.client_reads()
    assert ends.received == b"a reply"


async def test_what_follows_the_end_is_not_kept(lab: Lab, certificates: ServerCertificates) -> None:
    ends = connected(lab, certificates, random.Random(1))
    with pytest.raises(ssl.SSLWantReadError):
        ends.client.unwrap()
    ends.below.deliver(ends.upwards.read())
    assert ends.above.events == ["end"]
    for _ in range(10):
        ends.below.deliver(bytes(10_000))
    assert not ends.transport._incoming.pending


class Forger:
    """Encrypts records of TLS 1.3 as the client, with the secrets that it has logged."""

    def __init__(self, key_log: Path) -> None:
        lines = (line.split() for line in key_log.read_text().splitlines())
        self.secret = next(
            bytes.fromhex(words[2]) for words in lines if words[0] == "CLIENT_TRAFFIC_SECRET_0"
        )
        self.start()

    def start(self) -> None:
        self.key, self.iv, self.number = self.derived("key", 32), self.derived("iv", 12), 0

    def derived(self, label: str, size: int) -> bytes:
        """HKDF-Expand-Label of RFC 8446, section 7.1."""
        name = b"tls13 " + label.encode()
        info = size.to_bytes(2) + bytes([len(name)]) + name + b"\0"
        return HKDFExpand(SHA384(), size, info).derive(self.secret)

    def record(self, content: bytes, kind: int) -> bytes:
        head = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2)
        nonce = (int.from_bytes(self.iv) ^ self.number).to_bytes(12)
        self.number += 1
        return head + AESGCM(self.key).encrypt(nonce, content + bytes([kind]), head)

    def key_updates(self, count: int) -> bytes:
        """Records that each ask for a key update of the other side, too."""
        made = b""
        for _ in range(count):
            made += self.record(b"\x18\0\0\1\1", 0x16)
            self.secret = self.derived("traffic upd", 48)
            self.start()
        return made


@pytest.fixture
def forged(lab: Lab, certificates: ServerCertificates, tmp_path: Path) -> tuple[Ends, Forger]:
    ends = connected(lab, certificates, random.Random(1), key_log=tmp_path / "keys")
    assert ends.client.cipher() == ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)
    return ends, Forger(tmp_path / "keys")


async def test_a_key_update_is_answered(forged: tuple[Ends, Forger]) -> None:
    ends, forger = forged
    ends.below.deliver(forger.key_updates(3) + forger.record(b"hello", 0x17))
    assert ends.above.got == b"hello"
    ends.transport.write(b"a reply")
    ends.client_reads()
    assert ends.received == b"a reply"


async def test_answers_to_key_updates_are_bounded(
    forged: tuple[Ends, Forger], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ends, forger = forged
    ends.below.room = 0
    held = 0
    while not ends.below.closing:
        ends.below.deliver(forger.key_updates(10))
        held = max(held, len(ends.below.buffered) + ends.transport._outgoing.pending)
        assert held < 2 * MOST_ANSWERS
    assert held >= MOST_ANSWERS / 2
    assert "the client asks for key updates, and reads no answers" in caplog.text
    await asyncio.sleep(0)
    assert ends.above.events == ["lost"]


async def test_a_reply_waits_for_the_rest_of_a_key_update(forged: tuple[Ends, Forger]) -> None:
    ends, forger = forged
    ends.below.deliver(forger.record(b"\x18\0\0\1", 0x16))
    ends.transport.write(b"a reply")
    assert not ends.above.may_write
    assert not ends.below.closing
    ends.below.deliver(forger.record(b"\0", 0x16))
    assert ends.above.may_write
    ends.client_reads()
    assert ends.received == b"a reply"


async def test_a_client_that_never_reads_does_not_keep_a_closed_connection(
    lab: Lab, certificates: ServerCertificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vipsrv.server.connections.tls_transport.CLOSE_SECONDS", 0.001)
    ends = connected(lab, certificates, random.Random(1))
    ends.below.room = len(ends.below.sent)  # the end of TLS does not fit any more
    ends.transport.close()
    assert ends.below.buffered
    async with asyncio.timeout(10):
        while not ends.below.lost:
            await asyncio.sleep(0.001)
    assert ends.above.events == ["lost"]


async def test_a_client_that_has_gone_is_noticed_by_the_end_of_ours(
    lab: Lab, certificates: ServerCertificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = connected(lab, certificates, random.Random(1))

    def fail() -> None:
        raise OSError("not connected")

    monkeypatch.setattr(ends.below, "write_eof", fail)
    ends.transport.write_eof()
    await asyncio.sleep(0)
    assert ends.above.events == ["lost"]
