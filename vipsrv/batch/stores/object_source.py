"""A bucket, or a prefix in one, as a source of images."""

import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from io import FileIO
from typing import TYPE_CHECKING

from vipsrv.batch.images import ListedImage
from vipsrv.batch.stores.blocking_calls import CHUNK, BlockingCalls
from vipsrv.batch.stores.interface import READ_WHOLE
from vipsrv.batch.stores.keys import checked_key, is_hidden
from vipsrv.batch.stores.left_out import LeftOut
from vipsrv.batch.stores.object_faults import Access, broken_body, is_missing, object_error
from vipsrv.batch.stores.object_place import open_place
from vipsrv.batch.stores.os_faults import storage_failure
from vipsrv.client import ImageSource

if TYPE_CHECKING:
    from obstore import GetResult

_PIECE = 2**20
"""Bytes of a larger image that are read and written at a time."""

_READS = 3
"""How often an image is asked for, if the connection breaks while it is read: not every store can go on."""


class ObjectSource:
    """The objects of a bucket, without hidden ones: as in a folder, a part of their key starts with a dot."""

    def __init__(self, url: str, *, skip: Collection[str] = ()) -> None:
        self._store = open_place(url)
        import obstore  # noqa: PLC0415 - only batches with buckets load it

        self._obstore = obstore
        self._url = url
        self._skip = tuple(skip)
        self._calls = BlockingCalls(2, "objects")
        self._was_listed = False
        self.left_out = LeftOut()

    @property
    def url(self) -> str:
        """The URL."""
        return self._url

    async def images(self) -> AsyncIterator[ListedImage]:
        """List the objects, 1,000 at a time, in the order of the store. Raises ``StorageFailed``."""
        try:
            async for chunk in self._obstore.list(self._store, chunk_size=CHUNK):
                self._was_listed = True
                for meta in chunk:
                    key = meta["path"]
                    if is_hidden(key) or key.startswith(self._skip):
                        continue
                    yield ListedImage(
                        key=key,
                        size=meta["size"],
                        modified=round(meta["last_modified"].timestamp() * 10**6) * 1000,
                        etag=(meta["e_tag"] or "").strip('"') or None,
                    )
        except self._errors as error:
            raise object_error(self._url, "", error, Access.LIST) from error

    @asynccontextmanager
    async def open(self, image: ListedImage) -> AsyncIterator[ImageSource]:
        """Give the bytes of a small image, and an unnamed temporary file of a large one.

        Raises ``OSError`` if this image cannot be read, ``StorageFailed`` if none can.
        """
        content = await self._read(checked_key(image.key))
        try:
            yield content
        finally:
            if isinstance(content, FileIO):
                content.close()

    async def close(self) -> None:
        """End its threads."""
        self._calls.close()

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        return (self._obstore.exceptions.BaseError, FileNotFoundError)

    async def _read(self, key: str) -> memoryview | FileIO:
        reads = 1
        while True:
            try:
                result = await self._obstore.get_async(self._store, key)
            except self._errors as error:
                problem = object_error(self._url, key, error, Access.READ)
                if self._was_listed and not is_missing(error):
                    await self._require()
                raise problem from error
            try:
                if result.meta["size"] <= READ_WHOLE:
                    return memoryview(await result.bytes_async())
                return await self._spool(result)
            except self._errors as error:
                if reads == _READS:
                    raise broken_body(key, error) from error
                reads += 1

    async def _require(self) -> None:
        """Raise ``StorageFailed`` if the bucket, which could be listed before, cannot be any more.

        Stores say in many ways that credentials are no good any more, and some as they say it of one object.
        """
        try:
            async for _ in self._obstore.list(self._store, chunk_size=1):
                return
        except self._errors as error:
            raise object_error(self._url, "", error, Access.LIST) from error

    async def _spool(self, result: "GetResult") -> FileIO:
        try:
            # Unbuffered: the client sends such a file without copying it.
            file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by open
            try:
                async for piece in result.stream(min_chunk_size=_PIECE):
                    await self._calls.run(_write_all, file, piece)
                file.seek(0)
            except BaseException:
                file.close()
                raise
        except OSError as error:  # of the temporary file: errors of the library have another type here
            place = tempfile.gettempdir()
            raise storage_failure(place, error, writing=True) or error from error
        return file


def _write_all(file: FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
