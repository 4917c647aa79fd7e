"""Slots in memory and in files, budgets, and what happens when the disk fails."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from vipsrv.errors import Busy
from vipsrv.storage.spool import LARGE_CHUNK_SIZE, RESERVED_AHEAD, SMALL_CHUNK_SIZE, Slot, Spool, _File
from vipsrv.worker_config import IN_MEMORY_SIZE

MIB = 1024 * 1024


@asynccontextmanager
async def spool_in(folder: Path, *, memory: int = 16 * MIB, disk: int = 64 * MIB) -> AsyncIterator[Spool]:
    spool = Spool(directory=folder, memory=memory, disk=disk)
    try:
        yield spool
    finally:
        spool.close()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


async def fill(slot: Slot, data: bytes) -> None:
    """As a session does: read into the room there is, wait while there is none."""
    rest = memoryview(data)
    while rest:
        if slot.stalled:
            await readiness(slot)
            continue
        room = slot.room()
        size = min(len(room), len(rest))
        room[:size] = rest[:size]
        slot.filled(size)
        rest = rest[size:]
    while not slot.complete:
        await readiness(slot)


async def readiness(slot: Slot) -> None:
    ready = asyncio.Event()
    slot.on_ready = ready.set
    await ready.wait()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def content(slot: Slot) -> bytes:
    if slot.descriptor is None:
        return b"".join(slot.views)
    return os.pread(slot.descriptor, slot.size + 1, 0)


@pytest.mark.parametrize(
    "size",
    [
        1,
        SMALL_CHUNK_SIZE - 1,
        SMALL_CHUNK_SIZE,
        SMALL_CHUNK_SIZE + 1,
        LARGE_CHUNK_SIZE - 1,
        LARGE_CHUNK_SIZE,
        LARGE_CHUNK_SIZE + 1,
        IN_MEMORY_SIZE,
        IN_MEMORY_SIZE + 1,
        20 * MIB,
    ],
)
def test_what_goes_in_comes_out(tmp_path: Path, size: int) -> None:
    async def test() -> None:
        data = os.urandom(size)
        async with spool_in(tmp_path) as spool:
            slot = spool.open(size)
            await fill(slot, data)
            assert (slot.descriptor is None) == (size <= IN_MEMORY_SIZE)
            assert content(slot) == data
            slot.close()

    run(test)


def test_the_file_is_nowhere_to_be_found_and_cannot_be_written_by_whom_it_is_lent_to(tmp_path: Path) -> None:
    async def test() -> None:
        async with spool_in(tmp_path) as spool:
            slot = spool.open(IN_MEMORY_SIZE + 1)
            assert list(tmp_path.iterdir()) == []
            assert slot.descriptor is not None
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.write(slot.descriptor, b"x")
            slot.close()

    run(test)


def test_memory_is_used_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with spool_in(tmp_path, memory=SMALL_CHUNK_SIZE) as spool:
            first = spool.open(10)
            chunk = first.room().obj
            first.close()
            second = spool.open(10)
            assert second.room().obj is chunk
            second.close()

    run(test)


def test_what_memory_cannot_hold_moves_to_a_file(tmp_path: Path) -> None:
    async def test() -> None:
        data = os.urandom(5 * LARGE_CHUNK_SIZE)
        async with spool_in(tmp_path, memory=2 * LARGE_CHUNK_SIZE) as spool:
            slots = [spool.open(len(data)) for _ in range(3)]
            await asyncio.gather(*(fill(slot, data) for slot in slots))
            assert [content(slot) for slot in slots] == [data] * 3
            assert all(slot.descriptor is not None for slot in slots)
            for slot in slots:
                slot.close()

    run(test)


def test_the_disk_has_a_budget_that_is_given_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with spool_in(tmp_path, disk=30 * MIB) as spool:
            slot = spool.open(20 * MIB)
            slot.room()
            with pytest.raises(Busy) as refused:
                spool.open(20 * MIB)
            assert refused.value.retry_after_ms
            slot.close()
            await until(lambda: spool.disk_left == 30 * MIB)
            spool.open(20 * MIB).close()
            await until(lambda: spool.disk_left == 30 * MIB)

    run(test)


def test_what_is_only_announced_takes_nothing_of_the_budget(tmp_path: Path) -> None:
    async def test() -> None:
        async with spool_in(tmp_path, disk=100 * MIB) as spool:
            slots = [spool.open(100 * MIB) for _ in range(4)]
            assert spool.disk_left == 100 * MIB
            for slot in slots[:3]:
                slot.room()
            assert spool.disk_left == 100 * MIB - 3 * RESERVED_AHEAD
            with pytest.raises(Busy):
                slots[3].room()
            for slot in slots:
                slot.close()
            await until(lambda: spool.disk_left == 100 * MIB)

    run(test)


def test_a_file_that_grows_takes_more_of_the_budget(tmp_path: Path) -> None:
    async def test() -> None:
        async with spool_in(tmp_path, disk=2 * RESERVED_AHEAD) as spool:
            grows, waits = (spool.open(RESERVED_AHEAD + MIB) for _ in range(2))
            await fill(grows, bytes(RESERVED_AHEAD + MIB))
            assert spool.disk_left == RESERVED_AHEAD - MIB
            with pytest.raises(Busy):
                waits.room()
            grows.close()
            await until(lambda: spool.disk_left == 2 * RESERVED_AHEAD)
            waits.room()
            waits.close()

    run(test)


def test_nobody_waits_for_a_file_to_be_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go = threading.Event()
    close = _File.close

    def slow_close(file: _File) -> None:
        assert may_go.wait(30)
        close(file)

    monkeypatch.setattr(_File, "close", slow_close)

    async def test() -> None:
        async with spool_in(tmp_path, disk=30 * MIB) as spool:
            slot = spool.open(20 * MIB)
            slot.room()
            slot.close()
            with pytest.raises(Busy):  # what is not free yet cannot be given out
                spool.open(20 * MIB)
            may_go.set()
            await until(lambda: spool.disk_left == 30 * MIB)

    run(test)


def test_a_slot_stalls_while_the_disk_is_behind(tmp_path: Path) -> None:
    async def test() -> None:
        async with spool_in(tmp_path) as spool:
            slot = spool.open(20 * MIB)
            while not slot.stalled:  # nothing is awaited, so no write can be over
                slot.filled(len(slot.room()))
            assert slot.received < 20 * MIB
            await readiness(slot)
            assert not slot.stalled
            slot.close()

    run(test)


def test_closing_while_a_write_is_under_way_frees_the_file_afterwards(tmp_path: Path) -> None:
    async def test() -> None:
        async with spool_in(tmp_path, disk=30 * MIB) as spool:
            slot = spool.open(20 * MIB)
            slot.filled(len(slot.room()))
            descriptor = slot.descriptor
            assert descriptor is not None
            slot.close()
            slot.close()
            await until(lambda: spool.disk_left == 30 * MIB)
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)

    run(test)


def test_a_folder_that_has_gone_is_busy(tmp_path: Path) -> None:
    async def test() -> None:
        async with spool_in(tmp_path / "gone") as spool:
            with pytest.raises(Busy):
                spool.open(IN_MEMORY_SIZE + 1)

    run(test)


def test_a_disk_that_fails_is_told(tmp_path: Path) -> None:
    async def test() -> None:
        async with spool_in(tmp_path) as spool:
            slot = spool.open(20 * MIB)
            assert slot._file is not None
            os.dup2(os.open(os.devnull, os.O_RDONLY), slot._file.write_fd)  # as if it could not be written
            slot.filled(len(slot.room()))
            await readiness(slot)
            with pytest.raises(Busy):
                slot.room()
            with pytest.raises(Busy):
                _ = slot.complete
            slot.close()

    run(test)


def test_without_a_descriptor_to_draw_with_a_slot_is_filled_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptor(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    async def test() -> None:
        async with spool_in(tmp_path, disk=30 * MIB) as spool:
            slot = spool.open(20 * MIB)
            monkeypatch.setattr(os, "dup", no_descriptor)
            room = slot.room()
            slot.filled(len(room), source=0)
            monkeypatch.undo()
            await fill(slot, bytes(20 * MIB - len(room)))
            assert slot.received == 20 * MIB
            slot.close()
            while spool.disk_left != 30 * MIB:
                await asyncio.sleep(0)

    run(test)
