"""A list of keys, paths and URLs as a source of images."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import quote, unquote

from vipsrv.batch.images import ListedImage
from vipsrv.batch.stores.blocking_calls import BlockingCalls
from vipsrv.batch.stores.fsspec_place import WEB
from vipsrv.batch.stores.interface import Source
from vipsrv.batch.stores.key_entries import (
    BadEntry,
    Entries,
    KeyEntry,
    ListFormat,
    read_entries,
)
from vipsrv.batch.stores.keys import checked_key
from vipsrv.batch.stores.left_out import LeftOut
from vipsrv.batch.stores.os_faults import storage_failure
from vipsrv.batch.stores.standard_input import standard_input_entries
from vipsrv.client import ImageSource
from vipsrv.errors import StorageFailed

STANDARD_INPUT = "-"

_OPTIONS = re.compile(r"(?s)^(.+)#format=(\w+)&base=([^&#]*)$")


class KeyListSource:
    """The images that a list names: keys within ``base``, and paths and URLs of any other place.

    An image elsewhere gets a key from its path or URL, and keeps that as its location. Entries that cannot be
    used are counted in ``left_out``. A size, a time or an ETag that the list does not have stays unknown:
    nobody asks the store for it, and what is done is done again only if the list says that it has changed.

    ``opens`` opens the base and the other places.
    """

    def __init__(self, place: str, format_: ListFormat, base: str, opens: Callable[[str], Source]) -> None:
        self._place = place
        self._format = format_
        self._base_url = base
        self._opens = opens
        self._base = opens(base)
        self._others: dict[str, Source] = {}
        self._calls = BlockingCalls(1, "list")
        self.left_out = LeftOut()

    @property
    def url(self) -> str:
        """The list, its format and the base, from which the images can be opened without the list."""
        return f"{self._place}#format={self._format}&base={quote(self._base_url, safe='/:')}"

    async def images(self) -> AsyncIterator[ListedImage]:
        """Yield what the list names, in its order. Raises ``StorageFailed`` if it cannot be read."""
        if self._place == STANDARD_INPUT:
            async for entry in standard_input_entries(self._format):
                if (image := self._image(entry)) is not None:
                    yield image
            return
        folder, _, name = self._place.rpartition("/")
        source = self._opens(folder or "/")
        try:
            async with source.open(ListedImage(key=name)) as content:
                async for entry in self._calls.iterate(self._entries(content)):
                    if (image := self._image(entry)) is not None:
                        yield image
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise StorageFailed(self._place, f"the list of keys cannot be read: {reason}") from error
        finally:
            await source.close()

    @asynccontextmanager
    async def open(self, image: ListedImage) -> AsyncIterator[ImageSource]:
        """Open an image of the base or of another place, as that place does."""
        source, there = self._base, image
        if image.location is not None:
            root, key = _split(image.location)
            if root not in self._others:
                self._others[root] = self._opens(root)
            source, there = self._others[root], ListedImage(key=key, size=image.size)
        async with source.open(there) as content:
            yield content

    async def close(self) -> None:
        """Close all places."""
        self._calls.close()
        for source in (self._base, *self._others.values()):
            await source.close()

    def _entries(self, content: ImageSource) -> Entries:
        try:
            yield from read_entries(content, self._format)
        except OSError as error:
            raise storage_failure(self._place, error) or error from error

    def _image(self, entry: KeyEntry | BadEntry) -> ListedImage | None:
        if isinstance(entry, BadEntry):
            self.left_out.add(f"{self._place}, entry {entry.number}: {entry.reason}", fault=True)
            return None
        key, location = self._key(entry.name)
        try:
            checked_key(key)
        except ValueError as error:
            self.left_out.add(f"{self._place}, entry {entry.number}: {error}", fault=True)
            return None
        return ListedImage(
            key=key, size=entry.size, modified=entry.modified, etag=entry.etag, location=location
        )

    def _key(self, name: str) -> tuple[str, str | None]:
        """Return the key of an entry, and its location if it is not in the base."""
        start = self._base_url.rstrip("/") + "/"
        if name.startswith(start):
            return name.removeprefix(start), None
        if "://" in name:
            return re.sub("//+", "/", name.partition("://")[2]).strip("/"), name
        if name.startswith("/"):
            return re.sub("//+", "/", name).strip("/"), name
        while name.startswith("./"):  # as find writes them
            name = name[2:].lstrip("/")
        return name, None


def list_url(where: str) -> tuple[str, ListFormat, str] | None:
    """Return list, format and base from the URL of a ``KeyListSource``, ``None`` if it is not one."""
    match = _OPTIONS.match(where)
    if match is None or match[2] not in set(ListFormat):
        return None
    return match[1], ListFormat(match[2]), unquote(match[3])


def _split(location: str) -> tuple[str, str]:
    """Return the root of the place where an image is, and the image's key in it."""
    if "://" not in location:
        return "/", re.sub("//+", "/", location).lstrip("/")
    scheme, _, rest = location.partition("://")
    if scheme == "file":
        return "/", re.sub("//+", "/", unquote(rest)).lstrip("/")
    if scheme in WEB:  # one place for all hosts: a list may name any number of them
        return f"{scheme}://", rest
    host, _, key = rest.partition("/")
    return f"{scheme}://{host}", key
