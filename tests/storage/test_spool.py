"""Slots in memory and in files, and the budgets of both."""

import asyncio
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.storage.conftest import MIB, MakeSpool
from tests.support.slots import content, fill, fill_at_once, ready
from vipsrv.errors import Busy
from vipsrv.storage import Share, Slot
from vipsrv.storage.budget import GREED
from vipsrv.storage.chunk_pool import LARGE_CHUNK_SIZE, SMALL_CHUNK_SIZE
from vipsrv.storage.file_slot import LEAST_RESERVED_AHEAD
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
    assert (spool.use.memory, spool.use.disk, spool.use.files, spool.use.moves) == (SMALL_CHUNK_SIZE, 0, 0, 0)
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
    assert (spool.use.memory, spool.use.memory_limit) == (0, 2 * LARGE_CHUNK_SIZE)
    assert (spool.use.files, spool.use.moves) == (3, 3)
    assert spool.use.disk >= 3 * len(data)
    for slot in slots:
        slot.close()


def test_a_slot_that_finds_neither_memory_nor_disk_is_refused_and_gives_back_what_it_has(
    make_spool: MakeSpool,
) -> None:
    spool = make_spool(memory=LARGE_CHUNK_SIZE, disk=0)
    slot = spool.open(2 * LARGE_CHUNK_SIZE)
    while slot.received < LARGE_CHUNK_SIZE:
        slot.filled(len(slot.room()))
    for _ in range(2):
        with pytest.raises(Busy):
            slot.room()
    slot.close()
    assert spool.memory_left == LARGE_CHUNK_SIZE


async def test_the_budget_of_the_disk_is_given_back(make_spool: MakeSpool) -> None:
    spool = make_spool(disk=30 * MIB)
    slot = await fill(spool.open(20 * MIB), bytes(20 * MIB))
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
    for slot in slots:
        slot.room()
    assert spool.disk_left == 100 * MIB - 4 * LEAST_RESERVED_AHEAD
    assert spool.memory_left == 16 * MIB - 4 * SMALL_CHUNK_SIZE
    for slot in slots:
        slot.close()
    await until(lambda: spool.disk_left == 100 * MIB)


async def test_a_slot_in_memory_grows_with_what_has_arrived(make_spool: MakeSpool) -> None:
    spool = make_spool(memory=16 * MIB)
    slot = spool.open(IN_MEMORY_SIZE)
    taken: list[int] = []
    while slot.received < IN_MEMORY_SIZE:
        slot.filled(len(slot.room()))
        taken.append(16 * MIB - spool.memory_left)
        assert taken[-1] <= 2 * slot.received
    assert [after - before for before, after in pairwise(taken[:5])] == [
        2 * SMALL_CHUNK_SIZE,
        4 * SMALL_CHUNK_SIZE,
        LARGE_CHUNK_SIZE,
        LARGE_CHUNK_SIZE,
    ]
    slot.close()


async def test_a_file_takes_more_of_the_budget_as_it_grows(make_spool: MakeSpool) -> None:
    spool = make_spool(disk=40 * MIB)
    slot = spool.open(40 * MIB)
    await fill_part(slot, 10 * MIB)
    assert 10 * MIB <= 40 * MIB - spool.disk_left <= 20 * MIB
    other = spool.open(19 * MIB)
    await fill(other, bytes(19 * MIB))
    with pytest.raises(Busy):
        await fill_part(slot, 30 * MIB)
    slot.close()
    other.close()
    await until(lambda: spool.disk_left == 40 * MIB)


async def fill_part(slot: Slot, size: int) -> None:
    """Fill at least ``size`` bytes, waiting while the disk is behind."""
    while slot.received < size:
        while slot.stalled:
            await ready(slot)
        slot.filled(len(slot.room()))


async def test_a_client_that_takes_all_it_can_leaves_room_for_others(make_spool: MakeSpool) -> None:
    spool = make_spool(memory=16 * MIB, disk=64 * MIB)
    greedy, modest = Share(), Share()
    slots: list[Slot] = []

    async def take_all() -> None:
        while True:
            slots.append(await fill(spool.open(4 * MIB, greedy), bytes(4 * MIB)))

    with pytest.raises(Busy, match="this client holds"):
        await take_all()
    assert spool.memory_left >= 16 * MIB // (1 + GREED)
    assert spool.disk_left >= 64 * MIB // (1 + GREED)
    assert 64 * MIB - spool.disk_left >= 40 * MIB  # it got the larger part
    slots.append(await fill(spool.open(2 * MIB, modest), bytes(2 * MIB)))
    assert slots[-1].descriptor is None
    slots.append(await fill(spool.open(10 * MIB, modest), bytes(10 * MIB)))
    for slot in slots:
        slot.close()
    await until(lambda: spool.disk_left == 64 * MIB)
    assert spool.memory_left == 16 * MIB
    assert (greedy.memory.size, greedy.disk.size, modest.memory.size, modest.disk.size) == (0, 0, 0, 0)


async def test_a_client_that_opens_all_files_it_can_leaves_some_for_others(make_spool: MakeSpool) -> None:
    spool = make_spool(files=8)
    greedy, modest = Share(), Share()
    slots: list[Slot] = []

    def open_all(share: Share) -> None:
        while True:
            slots.append(spool.open(10 * MIB, share))  # nothing arrives

    for share, most in ((greedy, 6), (modest, 1)):
        with pytest.raises(Busy, match=f"this client has {most}"):
            open_all(share)
    slots.pop(0).close()
    await until(lambda: greedy.files.size == 5)
    with pytest.raises(Busy, match="room for 1 more files, and this client has 2"):
        open_all(modest)
    for slot in slots:
        slot.close()
    await until(lambda: (greedy.files.size, modest.files.size) == (0, 0))
    spool.resize(memory=16 * MIB, disk=64 * MIB, files=0)
    with pytest.raises(Busy, match="room for 0 more files"):
        spool.open(10 * MIB)


async def test_the_only_slot_of_a_client_may_take_all(make_spool: MakeSpool) -> None:
    spool = make_spool(disk=20 * MIB)
    slot = await fill(spool.open(20 * MIB, Share()), bytes(20 * MIB))
    assert spool.disk_left == 0
    slot.close()
    await until(lambda: spool.disk_left == 20 * MIB)


async def test_a_missing_folder_is_reported_as_busy(
    make_spool: MakeSpool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Busy):
        make_spool(folder=tmp_path / "missing").open(IN_MEMORY_SIZE + 1)
    assert "no file can be created in the spool folder" in caplog.text


@pytest.mark.parametrize("size", [0, 1, SMALL_CHUNK_SIZE, IN_MEMORY_SIZE, IN_MEMORY_SIZE + 1, 20 * MIB])
async def test_a_slot_that_grows_ends_with_what_has_arrived(make_spool: MakeSpool, size: int) -> None:
    spool = make_spool()
    before = spool.memory_left, spool.disk_left
    slot = spool.open_growing(100 * MIB)
    data = os.urandom(size)
    for begin in range(0, size, 100_000):
        while slot.stalled:
            await ready(slot)
        fill_at_once(slot, data[begin : begin + 100_000])
        assert not slot.complete
    slot.end()
    while not slot.complete:
        await ready(slot)
    assert slot.received == slot.size == size
    assert (slot.descriptor is None) == (size <= IN_MEMORY_SIZE)
    assert content(slot) == data
    slot.close()
    await until(lambda: (spool.memory_left, spool.disk_left) == before)


async def test_a_slot_that_grows_takes_nothing_by_its_bound(make_spool: MakeSpool) -> None:
    """Its bound may be more than the disk has: bytes count when they arrive."""
    spool = make_spool(memory=2 * SMALL_CHUNK_SIZE, disk=MIB)
    slot = fill_at_once(spool.open_growing(1 << 40), os.urandom(SMALL_CHUNK_SIZE * 4))
    assert slot.descriptor is not None
    with pytest.raises(Busy):
        fill_at_once(slot, os.urandom(2 * MIB))
    slot.close()
