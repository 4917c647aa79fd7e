"""A folder of this machine as a source of images."""

import os
import stat
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from vipsrv.batch.images import ListedImage
from vipsrv.batch.stores.blocking_calls import BlockingCalls
from vipsrv.batch.stores.folder_root import FolderRoot
from vipsrv.batch.stores.folder_walk import FolderWalk
from vipsrv.batch.stores.interface import READ_WHOLE
from vipsrv.batch.stores.keys import checked_key, is_hidden
from vipsrv.batch.stores.left_out import LeftOut
from vipsrv.batch.stores.os_faults import storage_failure

READING_THREADS = 8
"""Files that are read at the same time if that takes long."""


class FolderSource:
    """The files below a folder. Hidden files and folders are skipped, and so are the prefixes ``skip``.

    A file of which the size is known and small is read as a whole; of others the client gets the path.
    """

    def __init__(self, folder: str | os.PathLike[str], *, skip: Collection[str] = ()) -> None:
        self._root = FolderRoot(folder)
        self._root.require()
        self._skip = frozenset(skip)
        self._start = os.path.join(self._root.url, "")  # noqa: PTH118 - a Path takes longer for each image
        self._calls = BlockingCalls(1, "folder")
        self._reading = BlockingCalls(READING_THREADS, "reading")
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
    async def open(self, image: ListedImage) -> AsyncIterator[bytes | Path]:
        """Give the content or the path.

        Raises ``OSError`` if this file cannot be read, ``StorageFailed`` if none can. That includes an
        ``OSError`` of whoever reads the file within the block.
        """
        path = self._start + checked_key(image.key)
        try:
            if image.size is not None and image.size <= READ_WHOLE:
                yield await self._reading.run_quick(_read, path)
            else:
                os.close(_open(path))
                yield Path(path)
        except OSError as error:
            self._root.require()
            raise storage_failure(self.url, error) or error from error

    async def close(self) -> None:
        """End its threads."""
        self._calls.close()
        self._reading.close()

    def _enters(self, folder: str) -> bool:
        return not is_hidden(folder) and folder not in self._skip


def _open(path: str) -> int:
    # Not blocking, because opening a named pipe waits for its other end; the client refuses one.
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _read(path: str) -> bytes | Path:
    """Return what is in a small file; the path of any other one, which the client sends or refuses.

    What a list of keys says of a file need not be so: it may be a pipe, or have any size.
    """
    descriptor = _open(path)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > READ_WHOLE:
            return Path(path)
        content = os.read(descriptor, found.st_size + 1)
        if len(content) == found.st_size:
            return content  # as nearly always, and its end was seen
        pieces = [content]  # it grows or shrinks, or the read was cut short
        while piece := os.read(descriptor, READ_WHOLE):
            pieces.append(piece)
        return b"".join(pieces)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(descriptor)
