"""Counts what a run would do, and resizes a random sample of it. Nothing is written to the destination.

::

    source ──► filters ──► selection ──► counts, and a Reservoir ──► ImageWork ──► Nowhere
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from vipsrv.batch.engines.interface import Work
from vipsrv.batch.estimate import Range, Reservoir, seconds_of, share_of, total_of
from vipsrv.batch.image_work import ImageWork
from vipsrv.batch.images import ListedImage
from vipsrv.batch.manifest.done_index import DoneIndex
from vipsrv.batch.manifest.manifest import Manifest
from vipsrv.batch.manifest.parts import Part, part_bytes
from vipsrv.batch.manifest.selection import Selection, SelectionCounts
from vipsrv.batch.room import Room, Seat
from vipsrv.batch.rows import Row
from vipsrv.batch.run_loop import Choices
from vipsrv.batch.shard_runner import MOST_BYTES, SEATS_BESIDE_WINDOW, UNKNOWN_SIZE
from vipsrv.batch.stores.interface import READ_WHOLE, Destination
from vipsrv.client import AsyncClient
from vipsrv.client.window import Window
from vipsrv.options import ResizeOptions

DEFAULT_SAMPLE = 100
"""Images of a sample: few enough that it is short, and so many that a mean is known to some percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run would do, and what it would take.

    ``counts`` are those of the listing. Of the ``images`` to do, ``sampled`` were resized within
    ``sample_seconds``; ``sample_failures`` are the codes of those that failed. The ranges are for all of
    ``images``: bytes of the images and of their results, altogether and for each of ``outputs``; how many
    fail; and the seconds, without those for storing. All ranges are ``None`` if there is nothing to do.
    """

    counts: SelectionCounts
    images: int
    sampled: int = 0
    sample_seconds: float = 0.0
    sample_failures: Counter[tuple[int, str]]
    bytes_in: Range | None = None
    bytes_out: Range | None = None
    outputs: tuple[tuple[ResizeOptions, Range], ...] = ()
    failures: Range | None = None
    seconds: Range | None = None


class Nowhere(Destination):
    """Takes the place of the destination ``url`` and stores nothing."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def url(self) -> str:
        """The URL of the destination."""
        return self._url

    async def write(self, key: str, data: bytes) -> None:
        """Drop the data."""

    async def read(self, key: str) -> bytes:
        """Raise ``FileNotFoundError``: there is nothing."""
        raise FileNotFoundError(key)

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        """List nothing."""
        nothing: tuple[str, ...] = ()
        for key in nothing:
            yield f"{prefix}{key}"

    async def remove(self, key: str) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""


@dataclass(slots=True)
class _Listing:
    counts: SelectionCounts
    sample: Reservoir[ListedImage]
    images: int = 0
    bytes_in: int = 0
    unknown_sizes: int = 0


async def dry_run(
    work: Work, choices: Choices, make_client: Callable[[], AsyncClient], *, sample: int
) -> Estimate:
    """Estimate what a run with the same arguments would take; ``sample`` is how many images are resized.

    Closes the source and the destination. Raises what ``BatchRun`` raises.
    """
    async with AsyncExitStack() as stack:
        stack.push_async_callback(work.source.close)
        stack.push_async_callback(work.destination.close)
        listing = await _list(work, choices, sample)
        if not listing.images:
            return Estimate(counts=listing.counts, images=0, sample_failures=Counter())
        rows, ended = await _resize(
            work, await stack.enter_async_context(make_client()), listing.sample.items
        )
    return _estimate(work, listing, rows, ended)


async def _list(work: Work, choices: Choices, sample: int) -> _Listing:
    manifest = Manifest(work.destination)
    index = DoneIndex(work.outputs)
    try:
        await index.read(manifest)
        for path, left in manifest.unpublished():  # a run would publish them first
            if left.facts is not None and left.rows:
                index.add(Part(part_bytes(left.facts, left.rows), path.name))
        selection = Selection(
            index, work.outputs, work.run, retry_failed=choices.retry_failed, limit=choices.limit
        )
        listing = _Listing(selection.counts, Reservoir(sample))
        async for shard in selection.shards(work.source.images()):
            for image in shard.images:
                listing.sample.add(image)
                listing.images += 1
                listing.bytes_in += image.size or 0
                listing.unknown_sizes += image.size is None
        return listing
    finally:
        index.close()


async def _resize(
    work: Work, client: AsyncClient, images: Sequence[ListedImage]
) -> tuple[list[Row], list[float]]:
    """Resize images as a run does; return their rows, and after how many seconds each had ended."""
    limits = (await client.hello()).limits
    window = Window(limits)
    room = Room(window.most + SEATS_BESIDE_WINDOW, MOST_BYTES)
    nowhere = replace(work, destination=Nowhere(work.destination.url))
    doing = ImageWork(nowhere, client, window, stopped=lambda: False)
    rows: list[Row] = []
    ended: list[float] = []
    started = time.perf_counter()

    async def do(image: ListedImage, seat: Seat) -> None:
        try:
            rows.append(await doing.row(image, seat))
            ended.append(time.perf_counter() - started)
        finally:
            seat.leave()

    async def do_all(some: Sequence[ListedImage]) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for image in some:
                    size = UNKNOWN_SIZE if image.size is None else image.size
                    tasks.create_task(do(image, await room.enter(min(size, READ_WHOLE))))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    await do_all(images[: limits.workers or 1])  # the first image of a worker takes longer than the others
    rows.clear()
    ended.clear()
    started = time.perf_counter()
    await do_all(images)
    return rows, ended


def _estimate(work: Work, listing: _Listing, rows: Sequence[Row], ended: Sequence[float]) -> Estimate:
    images, sampled = listing.images, len(rows)
    failures = Counter((row.status, row.code) for row in rows if not row.ok)
    unknown = total_of([row.bytes for row in rows], images) if listing.unknown_sizes else None
    known = listing.bytes_in
    sizes = [
        [one.bytes for one in row.outputs] if row.ok else [0] * len(work.outputs.options) for row in rows
    ]
    return Estimate(
        counts=listing.counts,
        images=images,
        sampled=sampled,
        sample_seconds=max(ended),
        sample_failures=failures,
        bytes_in=unknown or Range(known, known, known),
        bytes_out=total_of([sum(one) for one in sizes], images),
        outputs=tuple(
            (options, total_of([one[index] for one in sizes], images))
            for index, options in enumerate(work.outputs.options)
        ),
        failures=share_of(failures.total(), sampled, images),
        seconds=seconds_of(ended, images),
    )
