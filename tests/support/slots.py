"""Filling and reading slots of the spool as their owners do."""

import asyncio
import os

from vipsrv.storage import Slot

PATIENCE = 30
"""Seconds after which a test gives up waiting for the disk."""


def fill_at_once(slot: Slot, data: bytes) -> Slot:
    """Fill a slot without waiting for the disk."""
    rest = memoryview(data)
    while rest:
        room = slot.room()
        size = min(len(room), len(rest))
        room[:size] = rest[:size]
        slot.filled(size)
        rest = rest[size:]
    return slot


async def fill(slot: Slot, data: bytes) -> Slot:
    """Fill a slot as a connection does, waiting while it is stalled, until it is complete."""
    rest = memoryview(data)
    while rest:
        while slot.stalled:
            await ready(slot)
        room = slot.room()
        size = min(len(room), len(rest))
        room[:size] = rest[:size]
        slot.filled(size)
        rest = rest[size:]
    while not slot.complete:
        await ready(slot)
    return slot


async def ready(slot: Slot) -> None:
    """Wait until a slot calls ``on_ready``."""
    called = asyncio.Event()
    slot.on_ready = called.set
    await asyncio.wait_for(called.wait(), PATIENCE)


def content(slot: Slot) -> bytes:
    """All bytes of a complete slot, wherever they are."""
    if slot.descriptor is None:
        return b"".join(slot.views)
    return os.pread(slot.descriptor, slot.size + 1, 0)
