"""Taking back the last bytes of a slot."""

import asyncio
import random

import pytest

from tests.storage.conftest import MakeSpool
from tests.support.slots import content, fill_at_once, ready
from vipsrv.storage import Slot
from vipsrv.worker_config import IN_MEMORY_SIZE

SIZE = 3_000_000


async def cut(slot: Slot, size: int) -> None:
    while not slot.cut(size):
        await ready(slot)


async def fill_rest(slot: Slot, data: bytes) -> None:
    """Fill the rest of a slot in steps, as a connection does."""
    while slot.received < slot.size:
        while slot.stalled:
            await ready(slot)
        fill_at_once(slot, data[slot.received : slot.received + 100_000])
    while not slot.complete:
        await ready(slot)


@pytest.mark.parametrize("in_file", [False, True], ids=["memory", "file"])
@pytest.mark.parametrize("kept", [0, 1, 64 * 1024, 700_001, 2_999_999, SIZE])
async def test_other_bytes_take_the_place_of_those_cut(
    make_spool: MakeSpool, kept: int, *, in_file: bool
) -> None:
    size = IN_MEMORY_SIZE + SIZE if in_file else SIZE + 1_000_000
    data = random.Random(1).randbytes(size)
    slot = make_spool().open(size)
    fill_at_once(slot, data[:SIZE][:kept] + bytes(SIZE - kept))
    await cut(slot, kept)
    assert slot.received == kept
    await fill_rest(slot, data)
    assert (slot.descriptor is not None) is in_file
    assert content(slot) == data
    slot.close()


@pytest.mark.parametrize("in_file", [False, True], ids=["memory", "file"])
async def test_a_complete_slot_is_cut(make_spool: MakeSpool, *, in_file: bool) -> None:
    size = IN_MEMORY_SIZE + 100 if in_file else 100_000
    data = random.Random(2).randbytes(size)
    slot = make_spool().open(size)
    await fill_rest(slot, bytes(size))
    await cut(slot, 50)
    assert not slot.complete
    await cut(slot, 0)
    await fill_rest(slot, data)
    assert content(slot) == data
    slot.close()


async def test_memory_is_given_back(make_spool: MakeSpool) -> None:
    spool = make_spool()
    before = spool.memory_left
    slot = fill_at_once(spool.open(SIZE), bytes(SIZE))
    assert slot.cut(0)
    assert spool.memory_left == before
    slot.close()
    assert spool.memory_left == before


async def test_a_slot_may_be_closed_while_it_is_cut(make_spool: MakeSpool) -> None:
    spool = make_spool()
    slot = fill_at_once(spool.open(IN_MEMORY_SIZE + SIZE), bytes(SIZE))
    await cut(slot, 10)
    slot.close()
    async with asyncio.timeout(30):
        while spool.use.disk:
            await asyncio.sleep(0)
