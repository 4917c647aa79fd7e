"""Any mixture of cuts, ends, replies and clients: what uploads take of the spool is given back in the end."""

import asyncio
import random
import time
from itertools import chain
from pathlib import Path

import pytest

from tests.server.uploads.conftest import MIB, MakeStore, Store
from vipsrv.errors import Busy, UploadConflict
from vipsrv.server.accounts import Account
from vipsrv.storage.kept_slot import KeptSlot
from vipsrv.worker_config import IN_MEMORY_SIZE

STEPS = 1500
SIZES = (1, 70_000, 600_000, IN_MEMORY_SIZE + 1)
MOST_SENT = 400_000
DATA = bytes(MOST_SENT)
TTL = 1000


class Clients:
    """Clients of one or more gateways that do anything in any order."""

    def __init__(self, stores: list[Store], seed: int) -> None:
        self.stores = stores
        self.random = random.Random(seed)
        self.accounts = [Account("identity:shop"), Account("192.0.2.1"), Account("192.0.2.2")]
        self.ids = [f"{number:032x}" for number in range(5)]
        self.used: list[KeptSlot] = []
        self.done = 0

    async def step(self) -> None:
        choose = self.random.choice
        store, account, upload_id = choose(self.stores), choose(self.accounts), choose(self.ids)
        action = choose(["send", "send", "send", "create", "terminate", "watch", "status"])
        try:
            if action == "send":
                await self._send(store, account, upload_id)
            elif action == "create":
                store.uploads.create(account, upload_id, choose(SIZES), b"name")
            elif action == "terminate":
                store.uploads.terminate(account, upload_id)
            elif action == "status":
                store.uploads.status(account, upload_id)
            else:
                store.uploads.watch(float("inf"))
                self.let_go()
        except (Busy, UploadConflict):
            return
        self.done += 1

    async def _send(self, store: Store, account: Account, upload_id: str) -> None:
        status = store.uploads.status(account, upload_id)
        anew = status.size is None or not self.random.randrange(8)
        size = self.random.choice(SIZES) if anew or status.size is None else status.size
        offset = 0 if anew else status.received
        slot = store.uploads.open(account, upload_id, size, offset)
        if slot.received < size:
            slot.on_taken = slot.close
        self.used.append(slot)
        await store.fill(slot, DATA[: self.random.randrange(min(MOST_SENT, size - offset) + 1)])
        if slot.received == size and self.random.randrange(2):
            slot.replied()
        if self.random.randrange(3):
            slot.close()

    def let_go(self) -> None:
        for slot in self.used:
            slot.close()
        self.used.clear()


@pytest.mark.parametrize("gateways", [1, 2])
@pytest.mark.parametrize("seed", [1, 2])
async def test_all_is_given_back_when_all_has_expired(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gateways: int, seed: int
) -> None:
    bounds = {"memory": 2 * MIB, "disk": 3 * MIB, "upload_memory": 500_000, "upload_disk": 2 * MIB}
    stores = [make_store(shared=gateways > 1, upload_ttl=TTL, **bounds) for _ in range(gateways)]
    clients = Clients(stores, seed)
    for _ in range(STEPS):
        await clients.step()
    assert clients.done > STEPS / 3  # the rest is refused for good reasons
    clients.let_go()
    for store in stores:
        await store.rested()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * TTL)
    async with asyncio.timeout(10):
        while any(store.uploads._known or store.spool.use.files for store in stores):
            for store in stores:
                store.uploads.watch(float("inf"))
            await asyncio.sleep(0)
    for store in stores:
        use = store.spool.use
        assert (use.memory, use.disk, use.files) == (0, 0, 0)
        idle = store.uploads.idle
        assert (len(idle), idle.memory, idle.disk) == (0, 0, 0)
    for account in clients.accounts:
        share = account.share
        assert (share.memory.size, share.disk.size, share.files.size, share.uploads) == (0, 0, 0, 0)
        assert account.is_unused
    async with asyncio.timeout(10):
        while left := [one.name for one in chain.from_iterable(map(Path.iterdir, tmp_path.iterdir()))]:
            if all(name == "key" or name.startswith("keeper-") for name in left):
                break
            await asyncio.sleep(0.001)
