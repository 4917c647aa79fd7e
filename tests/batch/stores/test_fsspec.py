"""File systems of fsspec as sources and destinations."""

import errno
import functools
import http.server
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from vipsrv.batch.images import ListedImage
from vipsrv.batch.stores.folder_destination import FolderDestination
from vipsrv.batch.stores.fsspec_stores import FsspecDestination, FsspecSource
from vipsrv.batch.stores.interface import READ_WHOLE, Destination
from vipsrv.batch.stores.key_list_source import KeyListSource
from vipsrv.batch.stores.open_store import open_destination, open_source
from vipsrv.errors import BatchError, StorageFailed


@pytest.fixture(params=["memory", "local"])
async def destination(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Destination]:
    # A file system that renames and one that does not.
    url = f"memory://{tmp_path.name}/out" if request.param == "memory" else f"local://{tmp_path}/out"
    opened = FsspecDestination(url)
    yield opened
    await opened.close()
    if request.param == "memory":
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


async def test_what_is_written_can_be_listed_and_read(destination: Destination) -> None:
    assert [key async for key in destination.keys(".vipsrv/parts/")] == []
    for key in ("a.jpg", "x/y/b c.jpg", ".vipsrv/parts/1.parquet", "x/.hidden.jpg", "xx.jpg"):
        await destination.write(key, key.encode())
    await destination.write("a.jpg", b"second")
    assert await destination.read("a.jpg") == b"second"
    assert sorted([key async for key in destination.keys("x")]) == ["x/.hidden.jpg", "x/y/b c.jpg", "xx.jpg"]
    assert [key async for key in destination.keys(".vipsrv/parts/")] == [".vipsrv/parts/1.parquet"]
    source = FsspecSource(destination.url)
    images = {image.key: image async for image in source.images()}
    assert set(images) == {"a.jpg", "x/y/b c.jpg", "xx.jpg"}
    assert images["x/y/b c.jpg"].size == 11
    async with source.open(images["x/y/b c.jpg"]) as content:
        assert content == b"x/y/b c.jpg"
    within = FsspecSource(destination.url, skip=["x/"])
    assert {image.key async for image in within.images()} == {"a.jpg", "xx.jpg"}
    await destination.remove("a.jpg")
    await destination.remove("a.jpg")
    with pytest.raises(FileNotFoundError) as caught:
        await destination.read("a.jpg")
    assert caught.value.filename == "a.jpg"
    for key in ("../a", "/a", "a//b"):
        with pytest.raises(ValueError, match="the key"):
            await destination.write(key, b"")
    await source.close()
    await within.close()


async def test_a_large_file_and_one_of_unknown_size(destination: Destination) -> None:
    data = bytes(range(256)) * (READ_WHOLE // 256 + 1)
    await destination.write("large", data)
    await destination.write("small", b"123")
    source = FsspecSource(destination.url)
    for size in (len(data), None):
        async with source.open(ListedImage(key="large", size=size)) as content:
            assert content.read(len(data) + 1) == data  # type: ignore[union-attr]
        assert content.closed  # type: ignore[union-attr]
    async with source.open(ListedImage(key="small")) as content:
        assert content == b"123"
    await source.close()


async def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    destination = FsspecDestination(f"local://{tmp_path}/out")
    await destination.write("a.jpg", b"first")

    def broken(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(LocalFileSystem, "mv", broken)
    with pytest.raises(StorageFailed, match="No space left on device; make room there, then run the same"):
        await destination.write("a.jpg", b"second")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["a.jpg"]
    assert await destination.read("a.jpg") == b"first"
    await destination.close()


async def test_a_place_that_does_not_answer_stops_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    place = open_source("memory://place")
    assert isinstance(place, FsspecSource)

    def broken(*_: object, **__: object) -> None:
        raise EOFError("the session has ended")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", broken)
    with pytest.raises(OSError, match="the session has ended") as caught:  # this one only
        async with place.open(ListedImage(key="a.jpg", size=1)):
            pass
    assert caught.value.filename == "a.jpg"
    monkeypatch.setattr(MemoryFileSystem, "info", broken)
    with pytest.raises(StorageFailed, match="memory://place: the session has ended; make it available"):
        async with place.open(ListedImage(key="a.jpg", size=1)):
            pass
    monkeypatch.setattr(MemoryFileSystem, "ls", broken)
    with pytest.raises(StorageFailed):
        [image async for image in place.images()]
    await place.close()


class Pages(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "x").mkdir()
    (tmp_path / "a b.jpg").write_bytes(b"first")
    (tmp_path / "x/b.jpg").write_bytes(b"second")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Pages, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_pages_of_the_web_and_lists_of_urls(web: str, tmp_path: Path) -> None:
    source = open_source(web)
    assert isinstance(source, FsspecSource)
    assert {image.key async for image in source.images()} == {"a%20b.jpg", "x/b.jpg"}
    with pytest.raises(FileNotFoundError):
        async with source.open(ListedImage(key="nothing.jpg")):
            pass
    await source.close()
    urls = [f"{web}/a%20b.jpg", f"{web}/x/b.jpg?size=3", "http://127.0.0.1:9/c.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(urls))
    listed = open_source(tmp_path / "list.txt")
    first, second, unreachable = [image async for image in listed.images()]
    assert second.key == f"{web.removeprefix('http://')}/x/b.jpg?size=3"
    async with listed.open(first) as content:
        assert content == b"first"
    async with listed.open(second) as content:
        assert content == b"second"
    with pytest.raises(OSError, match=r"[Cc]onnect"):  # a row: another host may answer
        async with listed.open(unreachable):
            pass
    assert isinstance(listed, KeyListSource)
    assert list(listed._others) == ["http://"]  # not one place a host
    await listed.close()


def test_what_fsspec_does_not_know(tmp_path: Path) -> None:
    assert isinstance(open_destination(f"local://{tmp_path}"), FolderDestination)
    with pytest.raises(ValueError, match="nosuch://a: Protocol not known: nosuch"):
        open_source("nosuch://a")
    with pytest.raises(BatchError, match=r"smb://a: .* requires"):
        open_source("smb://a")
