"""What a batch needs of an engine: it takes shards, and gives rows."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from vipsrv.batch.images import ListedImage
from vipsrv.batch.outputs import Outputs
from vipsrv.batch.rows import Row
from vipsrv.batch.stores.interface import Destination, Source

DEFAULT_ATTEMPTS = 3
"""Requests for an image whose failures may be accidents."""

SHARD_SIZE = 1000
"""Images of a shard by default: few enough that a lost one costs little, and so many that ten million images
make no more than ten thousand parts of the manifest."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Images that are done together: their rows become one part of the manifest, published as a whole.

    ``name`` is unique in the destination and decides the name of the part, so that publishing a shard twice
    leaves one part. ``refused`` are the rows of images that are not to be done, as their results would have
    the names of others; they belong into the part as well.
    """

    name: str
    images: tuple[ListedImage, ...]
    refused: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What an engine is to do with the images of its shards.

    ``run`` is the id of the run. ``attempts`` bounds the requests for an image, and ``deadline_ms`` is what
    the server may take for each of them; ``None`` leaves that to the server.
    """

    source: Source
    destination: Destination
    outputs: Outputs
    run: str
    attempts: int = DEFAULT_ATTEMPTS
    deadline_ms: int | None = None


class Engine(Protocol):
    """Does the work of a batch.

    A row that has been given is safe: it is in a journal on this machine's disk or in a published part, and a
    later run does not do its image again.
    """

    @property
    def in_flight(self) -> int:
        """How many images are being read, resized or written, as far as is known."""
        ...

    def rows(self, shards: AsyncIterator[Shard]) -> AsyncGenerator[Row, None]:
        """Resize the images of all shards and yield what became of each.

        At most a few shards are taken ahead. Raises ``BatchError`` if the batch cannot go on; what is in
        flight has then ended, and its rows are safe.
        """
        ...

    def stop(self) -> None:
        """Take no further image; ``rows`` ends after those in flight. May be called from any thread."""
        ...
