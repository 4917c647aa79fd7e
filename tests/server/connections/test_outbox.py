"""The outbox, with a transport that takes as many bytes as it is told to."""

import asyncio
import errno
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from vipsrv.server.connections.outbox import FILE_READ_SIZE, Outbox
from vipsrv.server.connections.pace import GRACE_SECONDS
from vipsrv.server.connections.transport import PROGRESS_SIZE
from vipsrv.server.ended_requests import EndedRequests
from vipsrv.storage import Slot, Spool
from vipsrv.storage.chunk_pool import SMALL_CHUNK_SIZE
from vipsrv.worker_config import IN_MEMORY_SIZE


class FakeTransport(asyncio.WriteTransport):
    """Takes ``room`` bytes at once and holds the rest until it is told to go on."""

    def __init__(self, **extra: object) -> None:
        super().__init__(extra)
        self.closing = False
        self.writes = 0
        self.room = 0
        self.taken = bytearray()
        self.held = bytearray()
        self.aborted = False
        self.outbox: Outbox

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert (high, low) == (0, 0), "then not being paused means that all has been taken"

    def get_write_buffer_size(self) -> int:
        return len(self.held)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        assert not self.held, "nothing is written while the transport is full"
        self.writes += 1
        self.held += b"".join(list_of_data)
        self.take_held()
        if self.held:
            self.outbox.pause()

    def take(self, size: int) -> None:
        self.room += size
        self.take_held()
        if not self.held:
            self.outbox.resume()

    def take_held(self) -> None:
        size = min(self.room, len(self.held))
        self.taken += self.held[:size]
        del self.held[:size]
        self.room -= size


class Setting:
    def __init__(self) -> None:
        self.emptied = 0
        self.transport = FakeTransport()
        self.outbox = Outbox(self.transport, self._empty, EndedRequests())
        self.transport.outbox = self.outbox

    def _empty(self) -> None:
        self.emptied += 1


@pytest.fixture
def setting() -> Setting:
    return Setting()


def slot(spool: Spool, data: bytes) -> Slot:
    one = spool.open(len(data))
    room = one.room()
    room[: len(data)] = data
    one.filled(len(data))
    return one


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """A spool with memory for one slot: it ``has_memory`` while there is none."""
    one = Spool(directory=tmp_path, memory=SMALL_CHUNK_SIZE, disk=64 << 20)
    yield one
    one.close()


def test_replies_are_sent_one_after_another(setting: Setting, spool: Spool) -> None:
    setting.transport.room = 1000
    setting.outbox.put(b"one")
    setting.outbox.put(b"two:", slot(spool, b"body"))
    assert setting.transport.taken == b"onetwo:body"
    assert len(setting.outbox) == 0
    assert setting.emptied == 2


def test_a_result_is_given_back_when_its_last_byte_is_taken(setting: Setting, spool: Spool) -> None:
    body = slot(spool, b"body")
    setting.outbox.put(b"head", body)
    setting.outbox.put(b"next")
    setting.transport.take(7)
    assert spool.memory_left <= 0
    assert len(setting.outbox) == 2
    setting.transport.take(1)
    assert spool.memory_left > 0
    setting.transport.take(4)
    assert setting.transport.taken == b"headbodynext"
    assert setting.emptied == 1


async def slot_in_file(spool: Spool, data: bytes) -> Slot:
    body = spool.open(len(data))
    rest = memoryview(data)
    while rest:
        room = body.room()
        room[:] = rest[: len(room)]
        body.filled(len(room))
        rest = rest[len(room) :]
    while not body.complete:
        ready = asyncio.Event()
        body.on_ready = ready.set
        await ready.wait()
    return body


async def test_a_result_in_a_file_is_sent_piece_by_piece(setting: Setting, spool: Spool) -> None:
    data = bytes(range(256)) * (IN_MEMORY_SIZE // 256 + 1)
    before = spool.disk_left
    body = await slot_in_file(spool, data)
    setting.outbox.put(b"head", body)
    while setting.outbox:
        assert len(setting.transport.held) <= FILE_READ_SIZE
        setting.transport.take(100_000)
    assert setting.transport.taken == b"head" + data
    await is_given_back(spool, before)


async def is_given_back(spool: Spool, disk: int) -> None:
    """Wait until the spool has so many bytes of disk left."""
    async with asyncio.timeout(20):
        while spool.disk_left != disk:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("offsets", [(0,), (4,), (0, 4), (1, 3), (2, 2, 4), (0, 0, 1, 4, 4)])
def test_bytes_are_inserted_into_a_result(setting: Setting, spool: Spool, offsets: tuple[int, ...]) -> None:
    setting.transport.room = 1000
    inserts = tuple((offset, b"<%d>" % offset) for offset in offsets)
    setting.outbox.put(b"head:", slot(spool, b"body"), inserts=inserts)
    assert setting.transport.taken == b"head:" + expected(b"body", offsets)


def expected(body: bytes, offsets: tuple[int, ...]) -> bytes:
    """The bytes of a result with the inserts of ``offsets``."""
    made = b""
    for position in range(len(body) + 1):
        made += b"".join(b"<%d>" % offset for offset in offsets if offset == position)
        made += body[position : position + 1]
    return made


async def test_bytes_are_inserted_into_a_result_in_a_file(setting: Setting, spool: Spool) -> None:
    size = IN_MEMORY_SIZE + 1
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    offsets = (0, 5, 5, FILE_READ_SIZE, FILE_READ_SIZE + 5, size)
    inserts = tuple((offset, b"<%d>" % number) for number, offset in enumerate(offsets))
    body = await slot_in_file(spool, data)
    setting.transport.room = 1 << 30
    setting.outbox.put(b"head:", body, inserts=inserts)
    wanted = b"head:"
    before = 0
    for offset, inserted in inserts:
        wanted += data[before:offset] + inserted
        before = offset
    assert setting.transport.taken == wanted
    assert body.closed


async def test_a_file_that_cannot_be_read_ends_the_connection(
    setting: Setting, spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    before = spool.disk_left
    body = await slot_in_file(spool, bytes(IN_MEMORY_SIZE + 1))
    monkeypatch.setattr(os, "pread", fail)
    setting.transport.room = 4
    setting.outbox.put(b"head", body)
    assert setting.transport.aborted
    setting.outbox.close("lost")  # as the end of the connection does
    await is_given_back(spool, before)
    assert "Input/output error" in caplog.text


async def test_a_file_that_is_too_short_ends_the_connection(
    setting: Setting, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    body = await slot_in_file(spool, bytes(IN_MEMORY_SIZE + 1))
    assert body.descriptor is not None
    path = f"/proc/self/fd/{body.descriptor}"
    os.truncate(path, FILE_READ_SIZE)
    setting.transport.room = 10 * IN_MEMORY_SIZE
    setting.outbox.put(b"head", body)
    assert setting.transport.aborted
    assert len(setting.transport.taken) == 4 + FILE_READ_SIZE
    assert f"a file of the spool ends at {FILE_READ_SIZE} bytes" in caplog.text


def test_nothing_is_written_to_a_transport_that_is_closing(setting: Setting, spool: Spool) -> None:
    """After a failed write asyncio closes it, and would watch a descriptor that others may get meanwhile."""
    setting.transport.closing = True
    setting.outbox.put(b"head", slot(spool, b"body"))
    setting.outbox.resume()
    assert setting.transport.writes == 0
    setting.outbox.close("lost")
    assert spool.memory_left > 0
    assert setting.emptied == 0


async def test_closing_gives_everything_back(setting: Setting, spool: Spool) -> None:
    before = spool.disk_left
    bodies = [slot(spool, b"body") for _ in range(3)]  # one in memory, the others in files
    for body in bodies[:2]:
        setting.outbox.put(b"head", body)
    setting.outbox.close("lost")
    setting.outbox.put(b"late", bodies[2])
    await is_given_back(spool, before)
    assert spool.memory_left > 0


def test_a_client_is_stuck_that_takes_too_little_for_too_long(setting: Setting) -> None:
    outbox, transport = setting.outbox, setting.transport
    assert not outbox.is_stuck(0, 10)
    outbox.put(bytes(10 * PROGRESS_SIZE))
    assert not outbox.is_stuck(100, 10)
    transport.take(PROGRESS_SIZE - 1)
    assert not outbox.is_stuck(110, 10)
    assert outbox.is_stuck(110.1, 10)
    transport.take(1)
    assert not outbox.is_stuck(110.2, 10)
    assert not outbox.is_stuck(120, 10)
    transport.take(10 * PROGRESS_SIZE)
    assert not outbox.is_stuck(1000, 10)


def test_a_client_that_reads_slower_than_the_least_rate_is_found_out(setting: Setting, spool: Spool) -> None:
    outbox, transport = setting.outbox, setting.transport
    assert outbox.slowness(0, 4) is None
    outbox.put(bytes(1000), slot(spool, bytes(1000)))
    assert outbox.slowness(5000, 4) is None
    transport.take(500)
    late = 5000 + GRACE_SECONDS + 500 / 4
    assert outbox.slowness(late, 4) is None
    assert outbox.slowness(late, 0) is None
    expected = "500 of 1000 bytes in 725 s, where 4 bytes per second are the .*--min-rate"
    assert re.match(expected, outbox.slowness(late + 0.1, 4) or "")


def test_each_reply_has_its_own_time(setting: Setting, tmp_path: Path) -> None:
    outbox, transport = setting.outbox, setting.transport
    spool = Spool(directory=tmp_path, memory=2 * SMALL_CHUNK_SIZE, disk=0)
    for size in (100, 200):
        outbox.put(b"", slot(spool, bytes(size)))
    assert outbox.slowness(0, 1) is None
    transport.take(100)
    assert outbox.slowness(1000, 1) is None
    assert outbox.slowness(1000 + GRACE_SECONDS, 1) is None
    assert (outbox.slowness(1001 + GRACE_SECONDS, 1) or "").startswith("0 of 200 bytes")
    transport.take(200)
    assert outbox.slowness(9000, 1) is None
    spool.close()


class ForgetfulTransport(FakeTransport):
    """Does not say that it is full unless it is asked to look, as asyncio's of some releases."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        super().set_write_buffer_limits(high, low)
        if self.held:
            self.outbox.pause()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.held += b"".join(list_of_data)


def test_a_body_is_kept_while_it_is_sent_even_if_the_transport_does_not_pause_us(spool: Spool) -> None:
    transport = ForgetfulTransport()
    outbox = Outbox(transport, lambda: None, EndedRequests())
    transport.outbox = outbox
    body = slot(spool, b"body")
    outbox.put(b"head", body)
    assert spool.memory_left <= 0
    transport.take(8)
    assert spool.memory_left > 0
