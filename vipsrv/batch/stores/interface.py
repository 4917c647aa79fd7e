"""What the engines need of a place that has images, and of one that takes results."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from vipsrv.batch.images import ListedImage
from vipsrv.batch.stores.left_out import LeftOut
from vipsrv.client import ImageSource

READ_WHOLE = 8 * 2**20
"""Bytes: an image up to this is read before its turn comes. A larger one is read while it is sent, from
its file or from an unnamed temporary one."""


class Source(Protocol):
    """A place that has images. All methods raise ``StorageFailed`` if the place itself cannot be used."""

    @property
    def url(self) -> str:
        """What ``open_source`` takes to open the same source, on another machine too."""
        ...

    @property
    def left_out(self) -> LeftOut:
        """What the listing could not give so far, such as a folder that cannot be read."""
        ...

    def images(self) -> AsyncIterator[ListedImage]:
        """List all images, in bounded memory however many there are."""
        ...

    def open(self, image: ListedImage) -> AbstractAsyncContextManager[ImageSource]:
        """Open one image: a small one as bytes, a larger one as a path or a spooled file.

        Raises ``FileNotFoundError`` if this image is gone, and another ``OSError`` if only this one cannot be
        read.
        """
        ...

    async def close(self) -> None:
        """Release its connections."""
        ...


class Destination(Protocol):
    """A place that takes results. All methods raise ``StorageFailed`` if the place cannot be used."""

    @property
    def url(self) -> str:
        """What ``open_destination`` takes to open the same destination, on another machine too."""
        ...

    async def write(self, key: str, data: bytes) -> None:
        """Store ``data`` as a whole or not at all; what has the name is replaced."""
        ...

    async def read(self, key: str) -> bytes:
        """Return what is stored. Raises ``FileNotFoundError``."""
        ...

    def keys(self, prefix: str) -> AsyncIterator[str]:
        """List the keys that start with ``prefix``."""
        ...

    async def remove(self, key: str) -> None:
        """Remove what is stored, if it is there."""
        ...

    async def close(self) -> None:
        """Release its connections."""
        ...
