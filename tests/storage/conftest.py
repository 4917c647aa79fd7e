"""Spools of the size that a test needs, closed after it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vipsrv.storage import Spool

MIB = 1024 * 1024

MakeSpool = Callable[..., Spool]


@pytest.fixture
def make_spool(tmp_path: Path) -> Iterator[MakeSpool]:
    spools: list[Spool] = []

    def make(
        *, memory: int = 16 * MIB, disk: int = 64 * MIB, files: int = 100, folder: Path = tmp_path
    ) -> Spool:
        spools.append(Spool(directory=folder, memory=memory, disk=disk, files=files))
        return spools[-1]

    yield make
    for spool in spools:
        spool.close()
