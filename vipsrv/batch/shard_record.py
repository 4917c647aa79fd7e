"""Where the rows of a running shard go: to a journal on this machine, or to nobody but the caller."""

from collections.abc import Callable
from typing import Protocol

from vipsrv.batch.manifest.journal import Journal
from vipsrv.batch.manifest.manifest import Manifest
from vipsrv.batch.outputs import Outputs
from vipsrv.batch.rows import Row


class ShardRecord(Protocol):
    """Takes the rows of one shard. ``rows`` are those that it has from a process that died."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows that were there at the beginning."""
        ...

    def append(self, row: Row) -> None:
        """Take a row; it is safe from here on, as far as this record keeps rows."""
        ...

    async def publish(self) -> None:
        """Make a part of the manifest of the rows."""
        ...

    def close(self) -> None:
        """Release the record; rows that are not published stay where they are."""
        ...


BeginRecord = Callable[[str], ShardRecord]
"""Begins the record of the shard with this name. Raises ``StorageFailed``."""


class JournaledShard:
    """A shard whose rows are in a journal on this machine until they are published."""

    def __init__(self, manifest: Manifest, journal: Journal) -> None:
        self._manifest = manifest
        self._journal = journal

    @classmethod
    def beginner(cls, manifest: Manifest, outputs: Outputs) -> BeginRecord:
        """Return what begins such records for the destination of a manifest."""

        def begin(shard: str) -> ShardRecord:
            return cls(manifest, manifest.begin_shard(shard, outputs))

        return begin

    @property
    def rows(self) -> tuple[Row, ...]:
        """Rows that a dead process has left of this shard."""
        return tuple(self._journal.rows)

    def append(self, row: Row) -> None:
        """Write a row. Raises ``StorageFailed``."""
        self._journal.append(row)

    async def publish(self) -> None:
        """Publish the rows and remove the journal. Raises ``StorageFailed``."""
        await self._manifest.publish(self._journal)

    def close(self) -> None:
        """Close the journal; a later run publishes it, if it was not published."""
        self._journal.close()


class UnrecordedShard:
    """A shard whose rows only the caller gets, who keeps them: the driver of a cluster."""

    rows: tuple[Row, ...] = ()

    def __init__(self, shard: str) -> None:
        self.shard = shard

    def append(self, row: Row) -> None:
        """Do nothing: the caller gets the row."""

    async def publish(self) -> None:
        """Do nothing: the caller publishes."""

    def close(self) -> None:
        """Do nothing."""
