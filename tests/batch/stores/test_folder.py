"""Folders as sources and destinations."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from vipsrv.batch.images import ListedImage
from vipsrv.batch.stores import folder_destination
from vipsrv.batch.stores.folder_destination import FolderDestination
from vipsrv.batch.stores.folder_source import FolderSource
from vipsrv.batch.stores.open_store import open_destination, open_source
from vipsrv.errors import StorageFailed


def put(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.fixture
async def destination(tmp_path: Path) -> AsyncIterator[FolderDestination]:
    made = FolderDestination(tmp_path / "out")
    yield made
    await made.close()


async def listed(folder: Path, destination: Path | None = None) -> dict[str, ListedImage]:
    source = open_source(folder, destination=destination or "")
    images = [image async for image in source.images()]
    await source.close()
    assert len({image.key for image in images}) == len(images)
    return {image.key: image for image in images}


async def test_files_of_all_folders_are_listed_with_size_and_time(tmp_path: Path) -> None:
    put(tmp_path, **{"a.jpg": b"12", "x/y/b.png": b"", "x/c d.gif": b"3"})
    os.utime(tmp_path / "a.jpg", ns=(5, 1_700_000_000_123_456_789))
    found = await listed(tmp_path)
    assert set(found) == {"a.jpg", "x/y/b.png", "x/c d.gif"}
    assert found["a.jpg"] == ListedImage(key="a.jpg", size=2, modified=1_700_000_000_123_456_789)
    assert found["x/y/b.png"].size == 0


async def test_hidden_files_and_the_destination_are_no_images(tmp_path: Path) -> None:
    put(
        tmp_path, **{"a.jpg": b"1", ".b.jpg": b"1", ".c/d.jpg": b"1", "out/e.jpg": b"1", "in/out/f.jpg": b"1"}
    )
    put(tmp_path, **{".vipsrv/parts/p.parquet": b"1"})
    assert set(await listed(tmp_path, tmp_path / "out")) == {"a.jpg", "in/out/f.jpg"}
    assert set(await listed(tmp_path, tmp_path / "in/out")) == {"a.jpg", "out/e.jpg"}
    with pytest.raises(ValueError, match="is the source and the destination"):
        open_source(tmp_path, destination=tmp_path / "x/..")


async def test_a_hidden_folder_may_be_the_source(tmp_path: Path) -> None:
    put(tmp_path, **{".photos/a.jpg": b"1"})
    assert set(await listed(tmp_path / ".photos")) == {"a.jpg"}


async def test_links_to_files_are_images_and_links_to_folders_are_not_entered(tmp_path: Path) -> None:
    put(tmp_path, **{"in/a.jpg": b"123", "outside.jpg": b"12345"})
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/link.jpg").symlink_to(tmp_path / "outside.jpg")
    (tmp_path / "in/dangling.jpg").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "in/pipe.jpg")
    source = FolderSource(tmp_path / "in")
    found = {image.key: image async for image in source.images()}
    assert set(found) == {"a.jpg", "link.jpg", "dangling.jpg"}
    assert found["link.jpg"].size == 5
    assert found["dangling.jpg"].version == ""
    assert source.left_out.count == 2
    assert sorted(source.left_out.examples) == [
        "loop: links to folders are not followed",
        "pipe.jpg: not a regular file",
    ]
    with pytest.raises(FileNotFoundError):
        async with source.open(found["dangling.jpg"]):
            pass
    await source.close()


async def test_a_name_that_is_not_utf8_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, **{"a.jpg": b"1"})
    (tmp_path / os.fsdecode(b"b\xff.jpg")).write_bytes(b"1")
    source = FolderSource(tmp_path)
    assert [image.key async for image in source.images()] == ["a.jpg"]
    assert source.left_out.examples == [r"b\xff.jpg: the name is not UTF-8"]
    await source.close()


async def test_an_image_is_opened_as_a_path(tmp_path: Path) -> None:
    put(tmp_path, **{"x/a.jpg": b"12"})
    source = FolderSource(tmp_path)
    async with source.open(ListedImage(key="x/a.jpg")) as path:
        assert path == tmp_path / "x/a.jpg"
    for key in ("../x", "/etc/passwd", "", "a\0b"):
        with pytest.raises(ValueError, match="the key"):
            async with source.open(ListedImage(key=key)):
                pass
    await source.close()


async def test_a_source_that_is_gone_is_told_from_an_image_that_is_gone(tmp_path: Path) -> None:
    put(tmp_path, **{"in/a.jpg": b"12", "in/b.jpg": b"12"})
    source = FolderSource(tmp_path / "in")
    (tmp_path / "in/a.jpg").unlink()
    with pytest.raises(FileNotFoundError):
        async with source.open(ListedImage(key="a.jpg")):
            pass
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    with pytest.raises(StorageFailed, match="the folder is gone; make it available again"):
        async with source.open(ListedImage(key="b.jpg")):
            pass
    with pytest.raises(StorageFailed, match="the folder is gone"):
        [image async for image in source.images()]
    await source.close()


async def test_a_source_that_goes_while_an_image_is_read(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"a")
    source = FolderSource(tmp_path / "photos")

    async def read() -> None:
        async with source.open(ListedImage(key="a.jpg")) as path:
            assert isinstance(path, Path)  # as the size is not known
            (tmp_path / "photos").rename(tmp_path / "moved")
            path.read_bytes()

    with pytest.raises(StorageFailed, match="the folder is gone"):
        await read()
    await source.close()


async def test_what_is_no_folder_is_no_source(tmp_path: Path) -> None:
    put(tmp_path, **{"a.jpg": b"12"})
    with pytest.raises(StorageFailed, match=r"nothing: there is no such folder"):
        open_source(tmp_path / "nothing")
    with pytest.raises(StorageFailed, match=r"a\.jpg/x: there is no such folder"):
        open_source(tmp_path / "a.jpg/x")


async def test_results_replace_each_other_as_a_whole(tmp_path: Path, destination: FolderDestination) -> None:
    assert not (tmp_path / "out").exists()
    assert [key async for key in destination.keys("")] == []
    await destination.write("x/y/a.jpg", b"first")
    await destination.write("x/y/a.jpg", b"second")
    await destination.write(".vipsrv/parts/1.parquet", b"part")
    await destination.write("x.jpg", b"")
    assert await destination.read("x/y/a.jpg") == b"second"
    assert sorted([key async for key in destination.keys("x")]) == ["x.jpg", "x/y/a.jpg"]
    assert [key async for key in destination.keys(".vipsrv/parts/")] == [".vipsrv/parts/1.parquet"]
    assert [key async for key in destination.keys(".vipsrv/nothing/")] == []
    await destination.remove("x/y/a.jpg")
    await destination.remove("x/y/a.jpg")
    with pytest.raises(FileNotFoundError):
        await destination.read("x/y/a.jpg")
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == [
        ".vipsrv", "1.parquet", "parts", "x", "x.jpg", "y",
    ]  # fmt: skip


async def test_many_writes_at_a_time(destination: FolderDestination) -> None:
    await asyncio.gather(*(destination.write(f"{n % 7}/{n}.jpg", b"%d" % n) for n in range(300)))
    assert [await destination.read(f"{n % 7}/{n}.jpg") for n in range(300)] == [b"%d" % n for n in range(300)]


@pytest.mark.parametrize(
    "key", ["../a.jpg", "x/../../a.jpg", "/a.jpg", "", "a//b", "a/./b", "a\0", "x/\udcff"]
)
async def test_no_key_leaves_the_destination(
    tmp_path: Path, destination: FolderDestination, key: str
) -> None:
    with pytest.raises(ValueError, match="the key"):
        await destination.write(key, b"x")
    assert list(tmp_path.iterdir()) == []


async def test_a_key_that_cannot_be_a_file_fails_alone(destination: FolderDestination) -> None:
    await destination.write("a", b"x")
    for key in ("n" * 300, "a/b"):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - its errno depends on the system
            await destination.write(key, b"x")
        assert str(destination.folder / key) == caught.value.filename
    assert [key async for key in destination.keys("")] == ["a"]


async def test_a_destination_that_is_gone_is_not_made_again(
    tmp_path: Path, destination: FolderDestination
) -> None:
    await destination.write("a", b"x")
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    with pytest.raises(StorageFailed, match="the folder is gone"):
        await destination.write("b", b"x")
    assert not (tmp_path / "out").exists()


async def test_a_file_is_no_destination(tmp_path: Path) -> None:
    put(tmp_path, **{"a.jpg": b"12"})
    with pytest.raises(StorageFailed, match="it is not a folder"):
        open_destination(tmp_path / "a.jpg")
    made = FolderDestination(tmp_path / "a.jpg/x")
    with pytest.raises(StorageFailed, match="the folder cannot be made"):
        await made.write("a", b"x")
    await made.close()


async def test_a_system_without_a_call_for_one_file_system_syncs_all(
    destination: FolderDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On macOS."""
    synced: list[bool] = []
    monkeypatch.setattr(folder_destination, "_LIBC", object())
    monkeypatch.setattr(os, "sync", lambda: synced.append(True))
    await destination.write(".vipsrv/parts/a.parquet", b"rows")
    assert synced == [True]
    assert await destination.read(".vipsrv/parts/a.parquet") == b"rows"
