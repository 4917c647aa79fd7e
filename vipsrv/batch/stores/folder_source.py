"""A folder of this machine as a source of images."""

import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from vipsrv.batch.images import ListedImage
from vipsrv.batch.stores.blocking_calls import BlockingCalls
from vipsrv.batch.stores.folder_root import FolderRoot
from vipsrv.batch.stores.folder_walk import FolderWalk
from vipsrv.batch.stores.keys import checked_key, is_hidden
from vipsrv.batch.stores.left_out import LeftOut
from vipsrv.batch.stores.os_faults import storage_failure


class FolderSource:
    """The files below a folder. Hidden files and folders are skipped, and so are the prefixes ``skip``.

    The client gets paths, and sends each file from the page cache.
    """

    def __init__(self, folder: str | os.PathLike[str], *, skip: Collection[str] = ()) -> None:
        self._root = FolderRoot(folder)
        self._root.require()
        self._skip = frozenset(skip)
        self._calls = BlockingCalls(1, "folder")
        self.left_out = LeftOut()

    @property
    def url(self) -> str:
        """The path of the folder."""
        return self._root.url

    async def images(self) -> AsyncIterator[ListedImage]:
        """List all files; a thread reads the folders. Raises ``StorageFailed``."""
        walk = FolderWalk(self._root, self.left_out, self._enters)
        files = (image for image in walk.files() if not is_hidden(image.key))
        async for image in self._calls.iterate(files):
            yield image

    @asynccontextmanager
    async def open(self, image: ListedImage) -> AsyncIterator[Path]:
        """Give the path. Raises ``OSError`` if this file cannot be read, ``StorageFailed`` if none can.

        That includes an ``OSError`` of whoever reads the file within the block.
        """
        path = self._root.path / checked_key(image.key)
        try:
            # In the event loop, as the client's own opening is: a switch of threads costs more than the
            # calls. Not blocking: opening a named pipe waits for its other end; the client refuses one.
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            yield path
        except OSError as error:
            self._root.require()
            raise storage_failure(self.url, error) or error from error

    async def close(self) -> None:
        """End its threads."""
        self._calls.close()

    def _enters(self, folder: str) -> bool:
        return not is_hidden(folder) and folder not in self._skip
