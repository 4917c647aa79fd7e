"""The rows of a destination without those that later ones have replaced, in bounded memory.

Each image comes once for each set of options that was used.
"""

import asyncio
import itertools
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any, Self, TypeVar

from vipsrv.batch.manifest.layout import PARTS, run_of
from vipsrv.batch.manifest.manifest import Manifest
from vipsrv.batch.manifest.parts import Part, arrow, rows_of_table
from vipsrv.batch.manifest.temporary_database import full_disk_told, key_digest, temporary_database
from vipsrv.batch.outputs import Outputs
from vipsrv.batch.rows import Row
from vipsrv.batch.stores.interface import Destination
from vipsrv.batch.stores.open_store import open_destination

T = TypeVar("T")


async def latest_parts(
    manifest: Manifest, *, columns: Sequence[str] | None = None, options: str | None = None
) -> AsyncGenerator[Part, None]:
    """Yield all parts, each with those of its rows only that no later one replaces.

    ``options`` is a digest: parts of other options are left out.
    """
    keys = await manifest.part_keys()
    with _Latest() as latest:
        # A run lists each image once, so that its rows replace none of each other.
        several_runs = len({run_of(key.removeprefix(PARTS)) for key in keys}) > 1
        if several_runs:
            async for number, part in _numbered(manifest.parts(keys, ("key", "ended"))):
                await asyncio.to_thread(latest.add, number, part)
        chosen = latest.rows() if several_runs and latest.has_replaced else None
        async for number, part in _numbered(manifest.parts(keys, columns)):
            kept = None if chosen is None else await asyncio.to_thread(chosen.of_part, number)
            if options is not None and part.facts.options != options:
                continue
            if kept is not None and len(kept) < part.table.num_rows:
                part.table = part.table.take(arrow().array(kept, arrow().int64()))
            yield part


class _Latest:
    """Which row of which part is the latest of each key, in a temporary file."""

    def __init__(self) -> None:
        self._database = temporary_database()
        self._database.execute(
            "CREATE TABLE latest (key BLOB PRIMARY KEY, ended INTEGER, part INTEGER, row INTEGER) "
            "WITHOUT ROWID"
        )
        self._added = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add(self, number: int, part: Part) -> None:
        """Take over the rows of a part; of two rows of a key, the one that ended later stays."""
        options = part.facts.options
        rows = [
            (key_digest(options, key), ended, number, row)
            for row, (key, ended) in enumerate(zip(part.keys(), part.ended(), strict=True))
        ]
        self._added += len(rows)
        with full_disk_told():
            self._database.executemany(
                "INSERT INTO latest VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "ended = excluded.ended, part = excluded.part, row = excluded.row "
                "WHERE excluded.ended >= ended",
                rows,
            )

    @property
    def has_replaced(self) -> bool:
        """Whether any row was replaced by another."""
        found = self._database.execute("SELECT count(*) FROM latest").fetchone()
        return bool(found[0] < self._added)

    def rows(self) -> "_Chosen":
        """Return the rows that stay, part by part."""
        with full_disk_told():
            found = self._database.execute("SELECT part, row FROM latest ORDER BY part, row")
        return _Chosen(iter(found))


class _Chosen:
    """Gives the numbers of the rows of one part after another."""

    def __init__(self, found: Iterator[tuple[int, int]]) -> None:
        self._groups = itertools.groupby(found, key=lambda one: one[0])
        self._next = self._take()

    def _take(self) -> tuple[int, list[int]] | None:
        group = next(self._groups, None)
        return None if group is None else (group[0], [row for _, row in group[1]])

    def of_part(self, number: int) -> list[int]:
        """Return the rows of a part; the parts are asked for in their order."""
        if self._next is None or self._next[0] != number:
            return []
        rows = self._next[1]
        self._next = self._take()
        return rows


async def _numbered(parts: AsyncGenerator[Part, None]) -> AsyncGenerator[tuple[int, Part], None]:
    number = 0
    try:
        async for part in parts:
            yield number, part
            number += 1
    finally:
        await parts.aclose()


def rows_of(
    destination: Destination | str | PathLike[str], *, outputs: Outputs | None = None
) -> Generator[Row, None, None]:
    """Yield the latest row of each image that was done for a destination, in bounded memory.

    Images that were done with several sets of options come once for each, or only for ``outputs``. Rows that
    a run has not yet published are left out. Raises ``StorageFailed`` or ``BatchError``.
    """
    with _event_loop() as loop:
        opened = open_destination(destination) if isinstance(destination, (str, PathLike)) else destination
        try:
            parts = latest_parts(Manifest(opened), options=None if outputs is None else outputs.digest)
            while (part := loop.run(_next_part(parts))) is not None:
                yield from rows_of_table(part.table)
        finally:
            if opened is not destination:
                loop.run(opened.close())


async def _next_part(parts: AsyncGenerator[Part, None]) -> Part | None:
    return await anext(parts, None)


class _LoopOfThread:
    """An event loop in a thread of its own, as the caller's may run one already: a notebook does."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vipsrv-rows", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for what a coroutine returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """End the thread, after what is open in the loop."""
        self.run(self._loop.shutdown_asyncgens())
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def _event_loop() -> Iterator[_LoopOfThread]:
    loop = _LoopOfThread()
    try:
        yield loop
    finally:
        loop.close()
