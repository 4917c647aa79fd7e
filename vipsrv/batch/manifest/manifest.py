"""The manifest of one destination, as a process on this machine reads and extends it."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from vipsrv.batch.manifest.journal import (
    Journal,
    JournalContent,
    ShardFacts,
    boot_id,
    claim_left_journal,
    journals_in,
    read_journal,
)
from vipsrv.batch.manifest.layout import (
    PARTS,
    RUNS,
    is_part,
    is_run,
    journal_folder,
    local_folder,
    part_key,
    run_key,
    run_of,
)
from vipsrv.batch.manifest.parts import Part, part_bytes
from vipsrv.batch.manifest.run_lock import Holder, RunLock, holder
from vipsrv.batch.manifest.run_record import RunRecord
from vipsrv.batch.outputs import Outputs
from vipsrv.batch.rows import Row
from vipsrv.batch.stores.interface import Destination
from vipsrv.errors import StorageFailed
from vipsrv.version import __version__

_READ_AHEAD = 16
"""Parts that are read at the same time: a bucket takes tens of milliseconds for each."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a run has found of earlier ones that were killed.

    ``lost`` counts rows whose results have not survived that the machine was started again; their images are
    done again. ``faults`` are lines of journals that are no rows; those journals are kept, with another name.
    """

    shards: int = 0
    rows: int = 0
    lost: int = 0
    faults: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of it; nothing if all was well."""
        lost = f"{self.lost:,} images of an earlier run are done again: their results did not survive"
        return (
            *((f"{lost} a start of the machine",) if self.lost else ()),
            *(f"an earlier run left a damaged journal, which is kept: {fault}" for fault in self.faults),
        )


class Manifest:
    """The parts at a destination, and the journals on this machine."""

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self.journals = journal_folder(destination.url)

    def lock(self, run: str) -> RunLock:
        """Keep other runs on this machine off the destination. Raises ``BatchError`` if one is there."""
        return RunLock.acquire(self.journals, run=run, place=self.destination.url)

    def running(self) -> Holder | None:
        """Return which run of this machine is at work on the destination, if one is."""
        return holder(self.journals)

    async def recover(self) -> Recovery:
        """Publish the journals that dead processes have left on this machine."""
        shards = rows = lost = 0
        faults: list[str] = []
        for path in journals_in(self.journals):
            descriptor = claim_left_journal(path)
            if descriptor is None:
                continue
            journal = Journal(path, descriptor)
            try:
                found = journal.content()
                content = await self._surviving(found)
                lost += len(found.rows) - len(content.rows)
                published = await self._publish(content)
                shards += published > 0
                rows += published
                faults += content.faults
                if content.faults:
                    journal.set_aside()
                else:
                    journal.remove()
            finally:
                journal.close()
        return Recovery(shards, rows, lost, tuple(faults))

    async def _surviving(self, content: JournalContent) -> JournalContent:
        """Return what a journal holds without rows whose results were lost with the power of the machine.

        Results in a folder are synced before a part is written, not before a row is.
        """
        if content.boot == boot_id() or local_folder(self.destination.url) is None:
            return content
        return replace(content, rows=tuple([row for row in content.rows if await self._is_there(row)]))

    async def _is_there(self, row: Row) -> bool:
        """Whether all results of a row are at the destination, byte for byte."""
        for output in row.outputs:
            try:
                data = await self.destination.read(output.key)
            except FileNotFoundError:
                return False
            if hashlib.sha256(data).hexdigest() != output.sha256:
                return False
        return True

    def begin_shard(self, name: str, outputs: Outputs) -> Journal:
        """Begin the journal of a shard.

        Its ``rows`` are those that a dead process has left of the same shard; their images are done. Raises
        ``StorageFailed`` if the folder of the journals cannot be written to.
        """
        facts = ShardFacts(
            shard=name, run=run_of(name), options=outputs.digest, outputs=outputs.to_json(), tool=__version__
        )
        try:
            self.journals.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageFailed(str(self.journals), error.strerror or str(error)) from None
        return Journal.begin(self.journals, facts)

    async def publish(self, journal: Journal) -> None:
        """Make a part of the rows of a journal, then remove it.

        Nothing is lost if it ends between the two: to publish a journal again changes nothing.
        """
        content = journal.content()
        if content.faults:
            raise StorageFailed(str(journal.path), f"was changed by another program: {content.faults[0]}")
        await self._publish(content)
        journal.remove()

    async def _publish(self, content: JournalContent) -> int:
        """Publish rows and return how many; the part keeps those that it has of other images."""
        if content.facts is None or not content.rows:
            return 0
        key = part_key(content.facts.shard)
        try:
            # A shard whose node has died may have been done by another one in the meantime.
            earlier: Iterable[Row] = (await self.read_part(key)).rows()
        except FileNotFoundError:
            earlier = ()
        rows = _latest((*earlier, *content.rows))
        data = await asyncio.to_thread(part_bytes, content.facts, rows)
        await self.destination.write(key, data)
        return len(content.rows)

    async def part_keys(self) -> list[str]:
        """Return the keys of all parts in their order, which is that of the starts of the runs."""
        return sorted([key async for key in self.destination.keys(PARTS) if is_part(key)])

    async def read_part(self, key: str, columns: Sequence[str] | None = None) -> Part:
        """Read one part. Raises ``FileNotFoundError``, or ``BatchError`` if it is damaged."""
        data = await self.destination.read(key)
        place = f"{self.destination.url.rstrip('/')}/{key}"
        return await asyncio.to_thread(Part, data, place, columns=columns)

    async def parts(
        self, keys: Sequence[str], columns: Sequence[str] | None = None
    ) -> AsyncGenerator[Part, None]:
        """Yield parts in the order of their keys. Several are read at once."""
        pending: list[asyncio.Task[Part]] = []
        try:
            for key in keys:
                pending.append(asyncio.ensure_future(self.read_part(key, columns)))
                if len(pending) >= _READ_AHEAD:
                    yield await pending.pop(0)
            while pending:
                yield await pending.pop(0)
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def write_run(self, record: RunRecord) -> None:
        """Write what is known of a run, in place of what was written at its start."""
        await self.destination.write(run_key(record.run), record.to_json())

    async def runs(self) -> list[RunRecord]:
        """Return the records of all runs, by their start. One that cannot be read is left out."""
        records = []
        for key in sorted([key async for key in self.destination.keys(RUNS) if is_run(key)]):
            with suppress(ValueError, FileNotFoundError):
                records.append(RunRecord.from_json(await self.destination.read(key)))
        return records

    def unpublished(self) -> list[tuple[Path, JournalContent]]:
        """Return the journals on this machine with what they hold, also those that are being written."""
        found = []
        for path in journals_in(self.journals):
            try:
                found.append((path, read_journal(path)))
            except FileNotFoundError:  # it was published in the meantime
                continue
        return found


def _latest(rows: Iterable[Row]) -> list[Row]:
    """Return the latest row of each image, in the order in which the images come first."""
    latest: dict[str, Row] = {}
    for row in rows:
        known = latest.get(row.key)
        if known is None or row.ended >= known.ended:
            latest[row.key] = row
    return list(latest.values())
