"""A slot in a file: what it does while the disk is behind, when it fails, and when it is closed."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable

import pytest

from tests.storage.conftest import MIB, MakeSpool
from tests.support.slots import content, fill, ready
from vipsrv.errors import Busy
from vipsrv.storage import splice
from vipsrv.storage.chunk_pool import SMALL_CHUNK_SIZE
from vipsrv.storage.file_slot import TRANSITIONS, FileState

PATIENCE = 30


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


def no_space(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_every_state_has_a_way_to_the_end() -> None:
    assert set(TRANSITIONS) == set(FileState)
    for state in FileState:
        reached: set[FileState] = set()
        found = {state}
        while found - reached:
            reached |= found
            found = {after for one in reached for after in TRANSITIONS[one]}
        assert FileState.CLOSED in reached


async def test_it_stalls_while_the_disk_is_behind(make_spool: MakeSpool) -> None:
    slot = make_spool().open(20 * MIB)
    while not slot.stalled:  # nothing is awaited, so no write can end
        slot.filled(len(slot.room()))
    assert slot.received < 20 * MIB
    while slot.stalled:  # the first write may have been a small one
        await ready(slot)
    slot.close()


async def test_closing_during_a_write_frees_the_file_afterwards(make_spool: MakeSpool) -> None:
    spool = make_spool(disk=30 * MIB)
    slot = spool.open(20 * MIB)
    slot.filled(len(slot.room()))
    descriptor = slot.descriptor
    assert descriptor is not None
    slot.close()
    slot.close()
    await until(lambda: spool.disk_left == 30 * MIB)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


async def test_a_disk_that_fails_is_reported(
    make_spool: MakeSpool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = make_spool(disk=30 * MIB)
    slot = spool.open(20 * MIB)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", no_space)
        slot.filled(len(slot.room()))
        await ready(slot)
    assert not slot.stalled
    with pytest.raises(Busy):
        slot.room()
    with pytest.raises(Busy):
        _ = slot.complete
    assert "No space left on device" in caplog.text
    slot.close()
    await until(lambda: spool.disk_left == 30 * MIB)


@pytest.mark.skipif(not splice.available(), reason="splice(2) is Linux'")
async def test_it_reads_a_socket_by_itself_and_says_how_much(make_spool: MakeSpool) -> None:
    sender, receiver = socket.socketpair()
    with sender, receiver:
        receiver.setblocking(False)
        sender.sendall(b"spliced")
        slot = make_spool().open(20 * MIB)
        room = slot.room()
        room[:] = bytes(len(room))
        slot.filled(len(room), source=receiver.fileno())
        assert slot.stalled
        assert slot.take_spliced() == 0
        await ready(slot)
        assert not slot.stalled
        assert slot.received == SMALL_CHUNK_SIZE + len(b"spliced")
        assert (slot.take_spliced(), slot.take_spliced()) == (len(b"spliced"), 0)
        await fill(slot, bytes(20 * MIB - slot.received))
        assert content(slot)[: SMALL_CHUNK_SIZE + 9] == bytes(SMALL_CHUNK_SIZE) + b"spliced\0\0"
        slot.close()


async def test_without_a_source_everything_is_copied(make_spool: MakeSpool) -> None:
    slot = make_spool().open(20 * MIB)
    slot.filled(len(slot.room()), source=None)
    assert not slot.stalled
    slot.close()


async def test_without_a_descriptor_left_everything_is_copied(
    make_spool: MakeSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptor(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    spool = make_spool(disk=30 * MIB)
    slot = spool.open(20 * MIB)
    with monkeypatch.context() as patch:
        patch.setattr(os, "dup", no_descriptor)
        room = slot.room()
        slot.filled(len(room), source=0)
    await fill(slot, bytes(20 * MIB - len(room)))
    assert slot.received == 20 * MIB
    slot.close()
    await until(lambda: spool.disk_left == 30 * MIB)
