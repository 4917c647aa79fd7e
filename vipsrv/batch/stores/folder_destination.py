"""A folder of this machine as the destination of results."""

import ctypes
import os
from collections.abc import AsyncIterator
from pathlib import Path

from vipsrv.batch.stores.blocking_calls import BlockingCalls
from vipsrv.batch.stores.folder_root import FolderRoot
from vipsrv.batch.stores.folder_walk import FolderWalk
from vipsrv.batch.stores.keys import PRIVATE, checked_key
from vipsrv.batch.stores.left_out import LeftOut
from vipsrv.batch.stores.os_faults import storage_failure
from vipsrv.batch.stores.whole_file import is_temporary, write_whole

QUICK_BYTES = 2**20
"""A result up to this is copied to the page cache in less time than a switch to another thread takes."""


class FolderDestination:
    """Results as files below a folder, which is made with the first of them.

    Nobody sees a part of a file, and a process that is killed loses nothing that was written. Against a loss
    of power results are not synced one by one, which would cost more than resizing: before a part of the
    manifest is written, the whole file system is synced once, and the part itself, so that no part tells of
    a result that is not on the disk.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._root = FolderRoot(folder)
        self._root.exists()
        self._calls = BlockingCalls(4, "results")

    @property
    def url(self) -> str:
        """The path of the folder."""
        return self._root.url

    @property
    def folder(self) -> Path:
        """The folder."""
        return self._root.path

    async def write(self, key: str, data: bytes) -> None:
        """Store ``data`` as a whole or not at all.

        Raises ``StorageFailed``, and ``ValueError`` or ``OSError`` if only this key cannot be written: it
        leaves the folder, its name is too long, or a folder has that name.
        """
        # What is synced takes long; a result goes to the page cache.
        run = self._calls.run if key.startswith(PRIVATE) or len(data) > QUICK_BYTES else self._calls.run_quick
        await run(self._write, checked_key(key), data)

    async def read(self, key: str) -> bytes:
        """Return what is stored. Raises ``FileNotFoundError``."""
        return await self._calls.run(self._read, checked_key(key))

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        """List the keys that start with ``prefix``, without what is being written."""
        if not await self._calls.run(self._root.exists):
            return
        start = prefix[: prefix.rfind("/") + 1]
        if start and not await self._calls.run((self._root.path / start).is_dir):
            return
        walk = FolderWalk(self._root, LeftOut(), lambda _: True)
        async for image in self._calls.iterate(walk.files(start)):
            if image.key.startswith(prefix) and not is_temporary(image.key.rpartition("/")[2]):
                yield image.key

    async def remove(self, key: str) -> None:
        """Remove a file, if it is there. Raises ``StorageFailed``, or ``OSError`` if only this one stays."""
        await self._calls.run(self._remove, checked_key(key))

    async def close(self) -> None:
        """End its threads."""
        self._calls.close()

    def _write(self, key: str, data: bytes) -> None:
        path = os.path.join(self.url, key)  # noqa: PTH118 - a Path takes longer for each result
        lasting = key.startswith(PRIVATE)
        self._root.make()
        try:
            if lasting:
                _sync_file_system(self._root.path)
            try:
                write_whole(path, data, lasting=lasting)
            except FileNotFoundError:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, data, lasting=lasting)
        except OSError as error:
            self._root.require()
            failure = storage_failure(self.url, error, writing=True)
            raise failure or OSError(error.errno, error.strerror, path) from error

    def _read(self, key: str) -> bytes:
        try:
            return (self._root.path / key).read_bytes()
        except OSError as error:
            self._root.exists()
            raise storage_failure(self.url, error) or error from error

    def _remove(self, key: str) -> None:
        try:
            (self._root.path / key).unlink(missing_ok=True)
        except OSError as error:
            self._root.exists()
            raise storage_failure(self.url, error, writing=True) or error from error


def _sync_file_system(folder: Path) -> None:
    """Wait until all that was written to the file system of ``folder`` is on its disk: syncfs(2).

    Where the system has no such call (macOS), all file systems are synced, without waiting for the disks.
    """
    if not hasattr(_LIBC, "syncfs"):
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _LIBC.syncfs(descriptor) == -1:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


_LIBC = ctypes.CDLL(None, use_errno=True)
