"""Stores of uploads with the settings that a test needs, in one process or as several."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.slots import fill_at_once, ready
from vipsrv.errors import Busy
from vipsrv.server.accounts import Account
from vipsrv.server.settings import ServerSettings
from vipsrv.server.uploads import Uploads
from vipsrv.server.uploads.states import UploadState
from vipsrv.storage import Spool
from vipsrv.storage.kept_slot import KeptSlot

MIB = 1024 * 1024
PATIENCE = 30


@dataclass
class Store:
    """Uploads and the spool that they are in."""

    uploads: Uploads
    spool: Spool
    account: Account

    async def fill(self, slot: KeptSlot, data: bytes) -> KeptSlot:
        """Put in bytes as a connection does."""
        rest = memoryview(data)
        while rest:
            while slot.stalled:
                await ready(slot)
            part = rest[: len(slot.room())]
            fill_at_once(slot, bytes(part))
            rest = rest[len(part) :]
        return slot

    async def send(
        self, upload_id: str, data: bytes, size: int, offset: int = 0, account: Account | None = None
    ) -> None:
        """Send a part of an upload, as a connection that is then cut."""
        slot = self.uploads.open(account or self.account, upload_id, size, offset)
        (await self.fill(slot, data)).close()
        await self.rested()

    async def rested(self) -> None:
        """Wait until all that was let go is written."""
        async with asyncio.timeout(PATIENCE):
            while any(one.state is UploadState.SETTLING for one in self.uploads._known.values()):
                await asyncio.sleep(0)

    def received(self, upload_id: str, account: Account | None = None) -> int | None:
        """How much is held; None if there is no such upload."""
        status = self.uploads.status(account or self.account, upload_id)
        return None if status.size is None else status.received

    async def received_soon(self, upload_id: str) -> int | None:
        """The same, asked again while another one is busy with it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    return self.received(upload_id)
                except Busy:
                    await asyncio.sleep(0.01)


MakeStore = Callable[..., Store]


@pytest.fixture
async def make_store(tmp_path: Path) -> AsyncIterator[MakeStore]:
    stores: list[Store] = []

    def make(
        *,
        shared: bool = False,
        memory: int = 64 * MIB,
        disk: int = 256 * MIB,
        files: int = 100,
        **settings: Any,
    ) -> Store:
        spool = Spool(directory=tmp_path, memory=memory, disk=disk, files=files)
        uploads = Uploads(spool, ServerSettings(spool_dir=tmp_path, **settings), shared=shared)
        uploads.start()
        stores.append(Store(uploads, spool, Account("192.0.2.1")))
        return stores[-1]

    yield make
    for store in stores:
        await store.uploads.close()
        store.spool.close()
