"""The index and the latest rows, compared with a few lines of Python that hold everything in memory."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.batch_rows import ENDED, facts_of, failed_row, ok_row, outputs, write_part
from vipsrv.batch import rows_of
from vipsrv.batch.images import ListedImage
from vipsrv.batch.manifest.done_index import DoneIndex
from vipsrv.batch.manifest.layout import shard_name
from vipsrv.batch.manifest.parts import Part, part_bytes
from vipsrv.batch.manifest.selection import Selection
from vipsrv.batch.outputs import Outputs
from vipsrv.batch.rows import Row
from vipsrv.batch.stores.folder_destination import FolderDestination

MADE = outputs(320)
REPLACING = outputs(320, quality=10)
APART = outputs(640)

_keys = st.sampled_from(["a.jpg", "a.png", "b.jpg", "c/a.jpg"])
_versions = st.sampled_from(["", "1", "2"])
_codes = st.sampled_from(["ok", "corrupt_image", "busy"])


@st.composite
def _parts(draw: st.DrawFn) -> tuple[Outputs, list[Row]]:
    made = draw(st.sampled_from([MADE, REPLACING, APART]))
    rows = []
    for key in draw(st.lists(_keys, unique=True, min_size=1)):
        version, code, ended = draw(_versions), draw(_codes), ENDED + draw(st.integers(0, 3))
        row = ok_row(key, made, version=version, ended=ended)
        if code != "ok":
            row = replace(failed_row(key, made, version=version, ended=ended), code=code)
        rows.append(row)
    return made, rows


Parts = list[tuple[Outputs, list[Row]]]


def latest(parts: Parts, *, with_options: bool) -> dict[tuple[str, str], Row]:
    """Of each key, and perhaps options, the row that ended last; of several, that of the last part."""
    found: dict[tuple[str, str], Row] = {}
    for _, rows in parts:
        for row in rows:
            key = row.key, row.options if with_options else ""
            if key not in found or row.ended >= found[key].ended:
                found[key] = row
    return found


def same_version(one: str, other: str) -> bool:
    return one == other or not one or not other


def expected(parts: Parts, listed: list[tuple[str, str]], retried: set[str]) -> tuple[list[str], list[str]]:
    """Which keys are selected and which are refused."""
    counting = [part for part in parts if part[0] is not APART]
    rows = {key: row for (key, _), row in latest(counting, with_options=False).items()}
    names: dict[str, str] = {}
    for made, part in parts:
        if made is MADE:
            for row in part:
                if row.ok:
                    names.setdefault(MADE.planned(row.key)[0], row.key)
    selected, refused, seen = [], [], set()
    for key, version in listed:
        if key in seen:
            continue
        seen.add(key)
        known = rows.get(key)
        counts = known and known.options == MADE.digest and same_version(known.version, version)
        if known and counts and (known.ok or known.code not in retried):
            continue
        if names.setdefault(MADE.planned(key)[0], key) == key:
            selected.append(key)
        else:
            refused.append(key)
    return selected, refused


@settings(deadline=None)
@given(
    st.lists(_parts(), max_size=5),
    st.lists(st.tuples(_keys, _versions), max_size=8),
    st.sets(st.sampled_from(["corrupt_image", "busy"])),
    st.integers(1, 4),
)
def test_what_is_selected(
    parts: Parts, listed: list[tuple[str, str]], retried: set[str], shard_size: int
) -> None:
    index = DoneIndex(MADE)
    for number, (made, rows) in enumerate(parts, 1):
        index.add(Part(part_bytes(facts_of(shard_name("r", number), made), rows), "p"))
    selection = Selection(index, MADE, "run", retry_failed=retried, shard_size=shard_size)

    async def images() -> AsyncIterator[ListedImage]:
        for key, version in listed:
            yield ListedImage(key=key, etag=version)

    async def select() -> tuple[list[str], list[str]]:
        shards = [shard async for shard in selection.shards(images())]
        assert all(1 <= len(shard.images) + len(shard.refused) <= shard_size for shard in shards)
        assert len({shard.name for shard in shards}) == len(shards)
        return (
            [image.key for shard in shards for image in shard.images],
            [row.key for shard in shards for row in shard.refused],
        )

    selected, refused = asyncio.run(select())
    index.close()
    assert (selected, refused) == expected(parts, listed, retried)
    counts = selection.counts
    assert counts.listed == len(listed) == counts.skipped + counts.selected + counts.conflicts


@settings(deadline=None, max_examples=25)
@given(st.lists(_parts(), max_size=5))
def test_the_latest_rows(parts: Parts) -> None:
    with tempfile.TemporaryDirectory() as folder:

        async def write() -> None:
            destination = FolderDestination(folder)
            for number, (made, rows) in enumerate(parts, 1):
                await write_part(destination, shard_name(f"run{number}", 1), made, *rows)
            await destination.close()

        asyncio.run(write())
        found = list(rows_of(folder))
    assert {(row.key, row.options): row for row in found} == latest(parts, with_options=True)
    assert len(found) == len({(row.key, row.options) for row in found})
