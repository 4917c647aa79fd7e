"""A slot that gives its bytes back when it is closed, whatever a thread does at that moment."""

import asyncio
import errno
import os
import socket
import tempfile
from pathlib import Path

import pytest

from tests.storage.conftest import MIB, MakeSpool
from tests.support.slots import fill_at_once, ready
from vipsrv.storage import Share, Spool, splice
from vipsrv.storage.chunk_pool import SMALL_CHUNK_SIZE
from vipsrv.storage.file_slot import FileSlot
from vipsrv.storage.file_store import SpoolFile
from vipsrv.storage.kept_slot import KeptSlot
from vipsrv.storage.memory_slot import MemorySlot

SIZE = 20 * MIB


class Kept:
    """Remembers what came back."""

    def __init__(self) -> None:
        self.slots: list[KeptSlot] = []

    def returned(self, slot: KeptSlot) -> None:
        self.slots.append(slot)

    def replied(self, slot: KeptSlot) -> None:
        self.slots.append(slot)


def make_file(share: Share) -> SpoolFile:
    write_fd, path = tempfile.mkstemp()
    read_fd = os.open(path, os.O_RDONLY)
    Path(path).unlink()
    return SpoolFile(write_fd, read_fd, share)


def kept_slot(spool: Spool, keeper: Kept, size: int = SIZE) -> KeptSlot:
    return KeptSlot(spool, Share(), size, keeper=keeper, make_file=make_file)


async def settle(content: FileSlot) -> int:
    """Wait until all is written; return how much that is."""
    changed = asyncio.Event()
    content.on_progress = changed.set
    content.end()
    while not content.complete:
        await asyncio.wait_for(changed.wait(), 30)
        changed.clear()
    return content.received


def test_in_memory_its_chunks_go_on(make_spool: MakeSpool) -> None:
    spool, keeper = make_spool(), Kept()
    slot = kept_slot(spool, keeper, 1000)
    fill_at_once(slot, b"a" * 600)
    slot.close()
    slot.close()
    assert keeper.slots == [slot]
    assert slot.closed
    content = slot.content
    assert isinstance(content, MemorySlot)
    again = KeptSlot(spool, slot.share, 1000, keeper=keeper, make_file=make_file, content=content)
    assert (again.began, again.received, again.complete) == (600, 600, False)
    fill_at_once(again, b"b" * 400)
    assert b"".join(again.views) == b"a" * 600 + b"b" * 400
    again.content.close()


async def test_bytes_in_chunks_are_written_after_it_was_closed(make_spool: MakeSpool) -> None:
    spool, keeper = make_spool(), Kept()
    slot = kept_slot(spool, keeper)
    fill_at_once(slot, b"x" * 70_001)
    slot.close()
    content = slot.content
    assert isinstance(content, FileSlot)
    assert await settle(content) == 70_001
    file = content.detach()
    assert os.fstat(file.read_fd).st_size == 70_001
    assert spool.files.park(file) == 70_001
    assert spool.use.disk == 70_001
    assert spool.use.files == 0
    spool.files.forget(file.share, 70_001)
    assert spool.use.disk == 0


@pytest.mark.skipif(not splice.available(), reason="splice is a call of Linux")
async def test_what_a_thread_is_reading_from_the_socket_counts(make_spool: MakeSpool) -> None:
    slot = kept_slot(make_spool(), Kept())
    begin, rest = os.urandom(SMALL_CHUNK_SIZE), os.urandom(100_000)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        theirs.sendall(rest)
        slot.room()[:] = begin
        slot.filled(len(begin), ours.fileno())
        content = slot.content
        assert isinstance(content, FileSlot)
        assert content.splicing
        slot.close()
        assert await settle(content) == len(begin) + len(rest)
    file = content.detach()
    assert os.pread(file.read_fd, SIZE, 0) == begin + rest
    file.close()


async def test_a_slot_that_others_want_reads_no_more_from_the_socket_by_itself(make_spool: MakeSpool) -> None:
    slot = kept_slot(make_spool(), Kept())
    slot.is_wanted = True
    with socket.socket() as source:
        while not slot.stalled:
            slot.filled(len(slot.room()), source.fileno())
    content = slot.content
    assert isinstance(content, FileSlot)
    assert not content.splicing
    await settle(content)
    content.close()


async def test_a_disk_that_is_full_asks_for_room(
    make_spool: MakeSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = make_spool()
    asked: list[Share | None] = []

    def make_room(share: Share | None) -> bool:
        asked.append(share)
        return False

    monkeypatch.setattr(spool.files, "make_room", make_room)
    slot = spool.open(SIZE)

    def no_space(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", no_space)
        slot.filled(len(slot.room()))
        await ready(slot)
    assert asked == [None]
    slot.close()
