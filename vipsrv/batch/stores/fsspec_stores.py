"""Any file system of fsspec as a source and as a destination."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from io import FileIO

from vipsrv.batch.images import ListedImage
from vipsrv.batch.stores.fsspec_place import FsspecPlace
from vipsrv.batch.stores.keys import checked_key, is_hidden
from vipsrv.batch.stores.left_out import LeftOut
from vipsrv.batch.stores.whole_file import is_temporary
from vipsrv.client import ImageSource


class FsspecSource:
    """The files below a URL, without hidden ones. What a file system does not tell of a file is unknown."""

    def __init__(self, url: str, *, skip: Collection[str] = ()) -> None:
        self._place = FsspecPlace(url)
        self._skip = frozenset(skip)
        self.left_out = LeftOut()

    @property
    def url(self) -> str:
        """The URL."""
        return self._place.url

    async def images(self) -> AsyncIterator[ListedImage]:
        """List all files, folder by folder. Raises ``StorageFailed``."""
        files = self._place.files("", self.left_out, self._enters)
        async for image in self._place.calls.iterate(files):
            if not is_hidden(image.key):
                yield image

    @asynccontextmanager
    async def open(self, image: ListedImage) -> AsyncIterator[ImageSource]:
        """Give the bytes of a small image, and an unnamed temporary file of a large one."""
        key = checked_key(image.key)
        content = await self._place.calls.run(self._place.content, key, image.size)
        try:
            yield content
        finally:
            if isinstance(content, FileIO):
                content.close()

    async def close(self) -> None:
        """End its threads."""
        self._place.calls.close()

    def _enters(self, folder: str) -> bool:
        return not is_hidden(folder) and folder not in self._skip


class FsspecDestination:
    """Results as files below a URL."""

    def __init__(self, url: str) -> None:
        self._place = FsspecPlace(url)

    @property
    def url(self) -> str:
        """The URL."""
        return self._place.url

    async def write(self, key: str, data: bytes) -> None:
        """Store ``data`` as a whole or not at all. Raises ``StorageFailed``, or ``OSError`` for this key."""
        await self._place.calls.run(self._place.write, checked_key(key), data)

    async def read(self, key: str) -> bytes:
        """Return what is stored. Raises ``FileNotFoundError``."""
        return await self._place.calls.run(self._place.read, checked_key(key))

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        """List the keys that start with ``prefix``, without what is being written."""
        start = prefix[: prefix.rfind("/") + 1]
        try:
            async for file in self._place.calls.iterate(self._place.files(start, LeftOut(), lambda _: True)):
                if file.key.startswith(prefix) and not is_temporary(file.key.rpartition("/")[2]):
                    yield file.key
        except FileNotFoundError:
            return

    async def remove(self, key: str) -> None:
        """Remove a file, if it is there."""
        await self._place.calls.run(self._place.remove, checked_key(key))

    async def close(self) -> None:
        """End its threads."""
        self._place.calls.close()
