"""Unlinked files: freed in a thread, and their descriptors and pipes closed at the end."""

import asyncio
import socket
import sys
import threading
from pathlib import Path

import pytest

from vipsrv.errors import StartFailed
from vipsrv.storage.budget import Share
from vipsrv.storage.file_store import FileStore, SpoolFile

MIB = 1024 * 1024
PATIENCE = 30


def descriptors() -> list[str]:
    return sorted(link.name for link in Path("/proc/self/fd").iterdir())


async def test_nobody_waits_for_a_file_to_be_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_close = threading.Event()
    close = SpoolFile.close

    def slow_close(file: SpoolFile) -> None:
        assert may_close.wait(PATIENCE)
        close(file)

    monkeypatch.setattr(SpoolFile, "close", slow_close)
    files = FileStore(tmp_path, 30 * MIB, 100)
    file = files.create(Share(), 20 * MIB)
    files.reserve(file, 20 * MIB)
    files.remove(file)
    assert files.budget_left == 10 * MIB  # what is not free yet cannot be given out
    may_close.set()
    async with asyncio.timeout(PATIENCE):
        while files.budget_left != 30 * MIB:
            await asyncio.sleep(0)
    files.close()


async def test_views_are_appended_in_order(tmp_path: Path) -> None:
    files = FileStore(tmp_path, MIB, 100)
    file = files.create(Share(), 10)
    await files.write(file, [memoryview(b"one, "), memoryview(b"two, ")])
    await files.write(file, [memoryview(b"three")])
    assert file.read(0, 100) == b"one, two, three"
    assert file.read(5, 3) == b"two"
    files.remove(file)
    files.close()


async def test_a_file_that_is_shorter_than_its_reader_believes_is_an_error(tmp_path: Path) -> None:
    files = FileStore(tmp_path, MIB, 100)
    file = files.create(Share(), 100)
    await files.write(file, [memoryview(b"half")])
    assert file.read(2, 100) == b"lf"
    with pytest.raises(OSError, match="ends at 4 bytes or before"):
        file.read(4, 100)
    files.remove(file)
    files.close()


@pytest.mark.skipif(sys.platform != "linux", reason="splice(2) and /proc are Linux'")
async def test_closing_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = descriptors()
    files = FileStore(tmp_path, MIB, 100)
    file = files.create(Share(), 100)
    sender, receiver = socket.socketpair()
    with sender, receiver:
        receiver.setblocking(False)
        sender.sendall(b"spliced")
        moved = await files.write_and_splice(file, [memoryview(b"copied, ")], receiver.fileno(), 92)
        assert moved.size == len(b"spliced")
        assert file.read(0, 100) == b"copied, spliced"
    files.remove(file)
    files.close()
    assert descriptors() == before


async def test_no_thread_has_to_be_started_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = FileStore(tmp_path, MIB, 100)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(4):
        file = files.create(Share(), 100)
        files.reserve(file, 100)
        await asyncio.gather(*(files.write(file, [memoryview(b"half")]) for _ in range(2)))
        files.remove(file)
    with pytest.raises(StartFailed, match="thread"):
        FileStore(tmp_path, MIB, 100)
    async with asyncio.timeout(PATIENCE):
        while files.budget_left != MIB:
            await asyncio.sleep(0)
    files.close()
