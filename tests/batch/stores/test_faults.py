"""Destinations and sources that fail while a batch uses them."""

import asyncio
import errno
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vipsrv.batch.images import ListedImage
from vipsrv.batch.stores import folder_walk
from vipsrv.batch.stores.folder_destination import FolderDestination
from vipsrv.batch.stores.folder_root import FolderRoot
from vipsrv.batch.stores.folder_source import FolderSource
from vipsrv.batch.stores.os_faults import storage_failure
from vipsrv.errors import StorageFailed

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")

NOBODY = 65534


@pytest.fixture
def user_folder() -> Iterator[Path]:
    """A folder of a user who may not read and write everything, and who runs the test."""
    with tempfile.TemporaryDirectory() as name:
        user = os.geteuid()
        if user == 0:
            os.chown(name, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(user)
            Path(name).chmod(0o700)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)],  # noqa: S607 - wherever it is
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip(f"mount: {mounted.stderr.decode()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=False, capture_output=True)  # noqa: S607


@needs_root
async def test_a_full_disk_stops_the_batch_and_keeps_what_is_there(small_disk: Path) -> None:
    destination = FolderDestination(small_disk)
    await destination.write("a.jpg", b"1" * 100_000)
    with pytest.raises(StorageFailed) as caught:
        await destination.write("b.jpg", b"2" * 1_000_000)
    text = "No space left on device; make room there, then run the same command again"
    assert str(caught.value) == f"{small_disk}: {text}"
    with pytest.raises(StorageFailed):
        await destination.write("a.jpg", b"2" * 1_000_000)
    assert [path.name for path in small_disk.iterdir()] == ["a.jpg"]
    assert await destination.read("a.jpg") == b"1" * 100_000
    await destination.write("c.jpg", b"3")
    await destination.close()


@needs_root
async def test_a_disk_that_is_read_only_now(small_disk: Path) -> None:
    destination = FolderDestination(small_disk)
    await destination.write("a.jpg", b"1")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)  # noqa: ASYNC221, S607
    with pytest.raises(StorageFailed, match="Read-only file system; mount it writable or name another"):
        await destination.write("b.jpg", b"1")
    with pytest.raises(StorageFailed, match="Read-only file system"):
        await destination.remove("a.jpg")
    await destination.close()


@needs_root
async def test_a_disk_that_was_unmounted_is_not_its_empty_mount_point(small_disk: Path) -> None:
    source, destination = FolderSource(small_disk), FolderDestination(small_disk)
    await destination.write("a.jpg", b"1")
    subprocess.run(["umount", str(small_disk)], check=True)  # noqa: ASYNC221, S607
    with pytest.raises(StorageFailed, match="another file system is there now; mount the first one again"):
        await destination.write("b.jpg", b"1")
    with pytest.raises(StorageFailed, match="another file system"):
        async with source.open(ListedImage(key="a.jpg")):
            pass
    assert list(small_disk.iterdir()) == []
    await source.close()
    await destination.close()


LIMITED = """
import asyncio, resource, signal, sys
from vipsrv.batch.stores.folder_destination import FolderDestination
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
async def main():
    destination = FolderDestination(sys.argv[1])
    try:
        await destination.write("a/b.jpg", b"1" * 2000)
    except OSError as error:
        print(type(error).__name__, error.strerror)
asyncio.run(main())
"""


def test_a_file_that_cannot_be_written_to_its_end_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "OSError File too large\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


async def test_a_destination_that_may_not_be_written(user_folder: Path) -> None:
    user_folder.chmod(0o500)
    destination = FolderDestination(user_folder)
    with pytest.raises(StorageFailed, match="Permission denied; allow writing there or name another"):
        await destination.write("a.jpg", b"1")
    await destination.close()


async def test_a_folder_and_an_image_that_may_not_be_read(user_folder: Path) -> None:
    (user_folder / "secret").mkdir(mode=0)
    (user_folder / "a.jpg").touch(mode=0)
    source = FolderSource(user_folder)
    (image,) = [image async for image in source.images()]
    assert source.left_out.examples == ["secret/: the folder cannot be listed: Permission denied"]
    with pytest.raises(PermissionError):
        async with source.open(image):
            pass
    await source.close()


async def test_a_folder_that_cannot_be_listed_is_left_out_and_a_dying_disk_stops_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").touch()
    scandir, number = os.scandir, errno.EACCES

    def broken(path: Path) -> "os._ScandirIterator[str]":
        if path.name == "x":
            raise OSError(number, os.strerror(number))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", broken)
    source = FolderSource(tmp_path)
    assert [image.key async for image in source.images()] == ["y/a.jpg"]
    assert source.left_out.examples == ["x/: the folder cannot be listed: Permission denied"]
    number = errno.ESTALE
    with pytest.raises(StorageFailed, match="Stale file handle; mount it again, then run the same command"):
        [image async for image in source.images()]
    number = errno.ENOENT  # it went while the others were listed
    assert [image.key async for image in source.images()] == ["y/a.jpg"]
    await source.close()


async def test_folders_deeper_than_the_bound_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_walk, "MOST_LEVELS", 3)
    deep = tmp_path / "1/2/3/4"
    deep.mkdir(parents=True)
    for folder in (tmp_path, *deep.parents[:3], deep):
        (folder / "a.jpg").touch()
    source = FolderSource(tmp_path)
    assert {image.key async for image in source.images()} == {"a.jpg", "1/a.jpg", "1/2/a.jpg"}
    assert source.left_out.examples == ["1/2/3/: more than 3 folders within each other"]
    await source.close()


def test_an_image_on_a_dying_sector_is_a_row_and_a_result_there_is_not(tmp_path: Path) -> None:
    error = OSError(errno.EIO, os.strerror(errno.EIO))
    assert storage_failure(str(tmp_path), error) is None
    assert isinstance(storage_failure(str(tmp_path), error, writing=True), StorageFailed)
    assert storage_failure(str(tmp_path), FileNotFoundError(errno.ENOENT, "x"), writing=True) is None
    assert storage_failure(str(tmp_path), OSError("without a number")) is None


async def test_no_descriptors_left_is_no_property_of_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    source = FolderSource(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd")) + 1  # noqa: PTH208 - numbers
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(used)]
    await asyncio.sleep(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used // 2, hard))
    try:
        with pytest.raises(
            StorageFailed, match=r"Too many open files; raise the limit of open files \(ulimit"
        ):
            async with source.open(ListedImage(key="a.jpg")):
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)
    await source.close()


def test_a_root_is_not_made_twice(tmp_path: Path) -> None:
    root = FolderRoot(tmp_path / "x/y")
    assert not root.exists()
    root.make()
    root.make()
    (tmp_path / "x/y").rmdir()
    with pytest.raises(StorageFailed, match="the folder is gone"):
        root.make()
