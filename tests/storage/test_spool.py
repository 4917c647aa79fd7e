"""Slots in memory and in files, and the budgets of both."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.storage.conftest import MIB, MakeSpool
from tests.support.slots import content, fill, fill_at_once
from vipsrv.errors import Busy
from vipsrv.storage.chunk_pool import LARGE_CHUNK_SIZE, SMALL_CHUNK_SIZE
from vipsrv.storage.file_slot import RESERVED_AHEAD
from vipsrv.worker_config import IN_MEMORY_SIZE

PATIENCE = 30


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


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
async def test_a_slot_holds_what_it_was_given(make_spool: MakeSpool, size: int) -> None:
    data = os.urandom(size)
    slot = await fill(make_spool().open(size), data)
    assert slot.received == slot.size == size
    assert (slot.descriptor is None) == (size <= IN_MEMORY_SIZE)
    assert content(slot) == data
    slot.close()
    assert slot.closed


async def test_a_file_has_no_name_and_its_borrower_cannot_write_it(
    make_spool: MakeSpool, tmp_path: Path
) -> None:
    slot = make_spool().open(IN_MEMORY_SIZE + 1)
    assert list(tmp_path.iterdir()) == []
    assert slot.descriptor is not None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(slot.descriptor, b"x")
    slot.close()


def test_a_slot_in_memory_moves_to_a_file_when_memory_is_used_up_and_not_before(
    make_spool: MakeSpool,
) -> None:
    spool = make_spool(memory=SMALL_CHUNK_SIZE)
    slot = fill_at_once(spool.open(SMALL_CHUNK_SIZE), bytes(SMALL_CHUNK_SIZE))
    assert spool.memory_left == 0
    assert slot.descriptor is None
    slot.close()
    assert spool.memory_left == SMALL_CHUNK_SIZE


async def test_slots_that_memory_cannot_hold_move_to_files(make_spool: MakeSpool) -> None:
    data = os.urandom(5 * LARGE_CHUNK_SIZE)
    spool = make_spool(memory=2 * LARGE_CHUNK_SIZE)
    slots = [spool.open(len(data)) for _ in range(3)]
    await asyncio.gather(*(fill(slot, data) for slot in slots))
    assert [content(slot) for slot in slots] == [data] * 3
    assert all(slot.descriptor is not None for slot in slots)
    assert spool.memory_left == 2 * LARGE_CHUNK_SIZE
    for slot in slots:
        slot.close()


def test_a_slot_that_finds_neither_memory_nor_disk_is_refused_and_gives_back_what_it_has(
    make_spool: MakeSpool,
) -> None:
    spool = make_spool(memory=LARGE_CHUNK_SIZE, disk=0)
    slot = spool.open(2 * LARGE_CHUNK_SIZE)
    slot.filled(len(slot.room()))
    for _ in range(2):
        with pytest.raises(Busy):
            slot.room()
    assert slot.received == LARGE_CHUNK_SIZE
    slot.close()
    assert spool.memory_left == LARGE_CHUNK_SIZE


async def test_the_budget_of_the_disk_is_given_back(make_spool: MakeSpool) -> None:
    spool = make_spool(disk=30 * MIB)
    slot = spool.open(20 * MIB)
    slot.room()
    with pytest.raises(Busy) as refused:
        spool.open(20 * MIB)
    assert refused.value.retry_after_ms
    slot.close()
    await until(lambda: spool.disk_left == 30 * MIB)
    spool.open(20 * MIB).close()
    await until(lambda: spool.disk_left == 30 * MIB)


async def test_bytes_that_are_only_announced_take_nothing_of_the_budget(make_spool: MakeSpool) -> None:
    spool = make_spool(disk=100 * MIB)
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


async def test_a_file_that_grows_takes_more_of_the_budget(make_spool: MakeSpool) -> None:
    spool = make_spool(disk=2 * RESERVED_AHEAD)
    grows, waits = (spool.open(RESERVED_AHEAD + MIB) for _ in range(2))
    await fill(grows, bytes(RESERVED_AHEAD + MIB))
    assert spool.disk_left == RESERVED_AHEAD - MIB
    with pytest.raises(Busy):
        waits.room()
    grows.close()
    await until(lambda: spool.disk_left == 2 * RESERVED_AHEAD)
    waits.room()
    waits.close()


async def test_a_missing_folder_is_reported_as_busy(
    make_spool: MakeSpool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Busy):
        make_spool(folder=tmp_path / "missing").open(IN_MEMORY_SIZE + 1)
    assert "no file can be created in the spool folder" in caplog.text
