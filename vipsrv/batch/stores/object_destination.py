"""A bucket, or a prefix in one, as the destination of results."""

import mimetypes
from collections.abc import AsyncIterator
from contextlib import suppress

from vipsrv.batch.stores.blocking_calls import CHUNK
from vipsrv.batch.stores.keys import checked_key
from vipsrv.batch.stores.object_faults import Access, object_error
from vipsrv.batch.stores.object_place import open_place

_TYPES = {
    "webp": "image/webp",
    "avif": "image/avif",
    "jxl": "image/jxl",
    "parquet": "application/vnd.apache.parquet",
}
"""Content types that not every machine's table has."""


class ObjectDestination:
    """Results as objects of a bucket.

    A put is atomic, and a large one has several parts that become visible together. Each object has the
    content type of its ending, so that a bucket can be served to browsers as it is.
    """

    def __init__(self, url: str) -> None:
        self._store = open_place(url)
        import obstore  # noqa: PLC0415 - only batches with buckets load it

        self._obstore = obstore
        self._url = url

    @property
    def url(self) -> str:
        """The URL."""
        return self._url

    async def write(self, key: str, data: bytes) -> None:
        """Store ``data`` as a whole or not at all.

        Raises ``StorageFailed``, and ``ValueError`` or ``OSError`` if the store refuses this key only.
        """
        kind = content_type(checked_key(key))
        try:
            await self._obstore.put_async(self._store, key, data, attributes={"Content-Type": kind})
        except self._errors as error:
            raise object_error(self._url, key, error, Access.WRITE) from error

    async def read(self, key: str) -> bytes:
        """Return what is stored. Raises ``FileNotFoundError``."""
        try:
            result = await self._obstore.get_async(self._store, checked_key(key))
            return bytes(await result.bytes_async())
        except self._errors as error:
            raise object_error(self._url, key, error, Access.READ) from error

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        """List the keys that start with ``prefix``."""
        folder = prefix.rpartition("/")[0] or None  # the library lists whole folders only
        try:
            async for chunk in self._obstore.list(self._store, folder, chunk_size=CHUNK):
                for meta in chunk:
                    if meta["path"].startswith(prefix):
                        yield meta["path"]
        except self._errors as error:
            raise object_error(self._url, "", error, Access.LIST) from error

    async def remove(self, key: str) -> None:
        """Remove an object, if it is there."""
        try:
            with suppress(FileNotFoundError):
                await self._obstore.delete_async(self._store, checked_key(key))
        except self._errors as error:
            raise object_error(self._url, key, error, Access.WRITE) from error

    async def close(self) -> None:
        """Do nothing: the library closes its connections with the store."""

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        return (self._obstore.exceptions.BaseError, FileNotFoundError)


def content_type(key: str) -> str:
    """Return the content type of an ending."""
    ending = key.rpartition(".")[2].lower()
    return _TYPES.get(ending) or mimetypes.guess_type(f"x.{ending}")[0] or "application/octet-stream"
