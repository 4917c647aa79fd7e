"""The selection: what is skipped, what is done again, and whose the names are."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.support.batch_rows import (
    ENDED,
    LATER_RUN,
    RUN,
    facts_of,
    failed_row,
    ok_row,
    outputs,
    write_part,
)
from vipsrv.batch.engines.interface import Shard
from vipsrv.batch.images import ListedImage
from vipsrv.batch.manifest.done_index import DoneIndex, Relation, relation_of
from vipsrv.batch.manifest.layout import case_counts, shard_name
from vipsrv.batch.manifest.manifest import Manifest
from vipsrv.batch.manifest.parts import Part, part_bytes
from vipsrv.batch.manifest.selection import Retry, RetryFailed, Selection, SelectionCounts
from vipsrv.batch.outputs import Outputs
from vipsrv.batch.rows import Row
from vipsrv.batch.stores.folder_destination import FolderDestination
from vipsrv.errors import StorageFailed
from vipsrv.options import Fit, Format, ResizeOptions

MADE = outputs(320, 640)


def image(key: str, version: str | None = "7-1") -> ListedImage:
    return ListedImage(key=key, etag=version)


async def listing(images: Sequence[ListedImage]) -> AsyncIterator[ListedImage]:
    for one in images:
        yield one


def index_of(*parts: tuple[Outputs, Sequence[Row]], made: Outputs = MADE) -> DoneIndex:
    index = DoneIndex(made)
    for number, (options, rows) in enumerate(parts, 1):
        index.add(Part(part_bytes(facts_of(shard_name(RUN, number), options), rows), "p"))
    return index


async def select(
    index: DoneIndex,
    *images: ListedImage,
    made: Outputs = MADE,
    retry_failed: RetryFailed = Retry.NONE,
    limit: int | None = None,
    shard_size: int = 1000,
) -> tuple[list[Shard], SelectionCounts]:
    selection = Selection(
        index, made, LATER_RUN, retry_failed=retry_failed, limit=limit, shard_size=shard_size
    )
    shards = [shard async for shard in selection.shards(listing(images))]
    index.close()
    return shards, selection.counts


def keys(shards: Sequence[Shard]) -> list[str]:
    return [one.key for shard in shards for one in shard.images]


async def test_names_that_differ_in_case_where_that_does_not_count() -> None:
    listed = [image("a.jpg"), image("A.jpg"), image("\u00e9.jpg"), image("E\u0301.jpg")]
    assert (await select(index_of(), *listed))[1].conflicts == 0
    shards, counts = await select(DoneIndex(MADE, case_counts=False), *listed)
    assert keys(shards) == ["a.jpg", "\u00e9.jpg"]
    assert counts.conflicts == 2


def test_whether_case_counts_is_seen_by_the_folder_of_the_manifest(tmp_path: Path) -> None:
    (tmp_path / ".vipsrv").mkdir()
    assert case_counts(str(tmp_path))
    (tmp_path / ".VIPSRV").mkdir()  # as on a file system where that is the same folder
    assert not case_counts(str(tmp_path))
    assert case_counts("s3://bucket")


async def test_all_images_of_an_empty_destination_are_selected_in_shards() -> None:
    shards, counts = await select(index_of(), *(image(f"{i}.jpg") for i in range(5)), shard_size=2)
    assert [(shard.name, keys([shard])) for shard in shards] == [
        (f"{LATER_RUN}-000001", ["0.jpg", "1.jpg"]),
        (f"{LATER_RUN}-000002", ["2.jpg", "3.jpg"]),
        (f"{LATER_RUN}-000003", ["4.jpg"]),
    ]
    assert counts == SelectionCounts(listed=5, selected=5, ended=True)


async def test_a_slow_listing_gives_what_there_is() -> None:
    """And no empty shard while nothing comes; a failure of the listing is not lost meanwhile."""
    go_on, asked = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[ListedImage]:
        yield image("0.jpg")
        yield image("1.jpg")
        asked.set()
        await go_on.wait()
        yield image("2.jpg")
        raise StorageFailed("list", "it is gone")

    with contextlib.closing(index_of()) as index:
        selection = Selection(index, MADE, LATER_RUN, longest_wait=0.01)
        async with contextlib.aclosing(selection.shards(slow())) as shards:
            assert keys([await anext(shards)]) == ["0.jpg", "1.jpg"]
            second = asyncio.create_task(anext(shards))
            await asyncio.wait([second], timeout=0.1)
            assert asked.is_set()
            assert not second.done()
            go_on.set()
            with pytest.raises(StorageFailed, match="it is gone"):
                await second


async def test_nothing_listed_gives_no_shard() -> None:
    assert await select(index_of()) == ([], SelectionCounts(ended=True))


async def test_done_and_failed_images_are_skipped() -> None:
    index = index_of((MADE, [ok_row("a.jpg", MADE), failed_row("b.jpg", MADE)]))
    shards, counts = await select(index, image("a.jpg"), image("b.jpg"), image("c.jpg"))
    assert keys(shards) == ["c.jpg"]
    assert counts == SelectionCounts(listed=3, selected=1, done_before=1, failed_before=1, ended=True)
    assert counts.skipped == 2


@pytest.mark.parametrize(
    ("retry", "expected"),
    [
        (Retry.NONE, []),
        (Retry.ALL, ["b.jpg", "c.jpg"]),
        (["worker_died"], ["c.jpg"]),
        (["worker_died", "corrupt_image"], ["b.jpg", "c.jpg"]),
        (["busy"], []),
    ],
)
async def test_failed_images_are_done_again_by_their_code(retry: RetryFailed, expected: list[str]) -> None:
    rows = [
        ok_row("a.jpg", MADE),
        failed_row("b.jpg", MADE),
        failed_row("c.jpg", MADE, status=502, code="worker_died"),
    ]
    images = (image("a.jpg"), image("b.jpg"), image("c.jpg"))
    shards, counts = await select(index_of((MADE, rows)), *images, retry_failed=retry)
    assert keys(shards) == expected
    assert counts.failed_before == 2 - len(expected)


async def test_changed_content_is_done_again_whatever_became_of_the_old_one() -> None:
    index = index_of((MADE, [ok_row("a.jpg", MADE), failed_row("b.jpg", MADE)]))
    shards, _ = await select(index, image("a.jpg", "8-2"), image("b.jpg", "8-2"))
    assert keys(shards) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(("then", "now"), [("", "7-1"), ("7-1", None), ("", None)])
async def test_a_version_that_is_not_known_counts_as_the_same(then: str, now: str | None) -> None:
    index = index_of((MADE, [ok_row("a.jpg", MADE, version=then)]))
    assert (await select(index, image("a.jpg", now)))[1].done_before == 1


@pytest.mark.parametrize("first_part", ["earlier", "later"])
async def test_the_row_that_ended_later_counts_in_any_order_of_the_parts(first_part: str) -> None:
    earlier = (MADE, [failed_row("a.jpg", MADE), ok_row("b.jpg", MADE), ok_row("c.jpg", MADE, version="old")])
    later = (
        MADE,
        [
            ok_row("a.jpg", MADE, ended=ENDED + 1),
            failed_row("b.jpg", MADE, ended=ENDED + 1),
            ok_row("c.jpg", MADE, version="new", ended=ENDED + 1),
        ],
    )
    index = index_of(earlier, later) if first_part == "earlier" else index_of(later, earlier)
    shards, counts = await select(index, image("a.jpg"), image("b.jpg"), image("c.jpg", "old"))
    assert keys(shards) == ["c.jpg"]
    assert (counts.done_before, counts.failed_before) == (1, 1)


async def test_of_two_rows_of_the_same_moment_that_of_the_later_part_counts() -> None:
    index = index_of((MADE, [failed_row("a.jpg", MADE)]), (MADE, [ok_row("a.jpg", MADE)]))
    assert (await select(index, image("a.jpg")))[1].done_before == 1


async def test_what_is_listed_twice_is_done_once() -> None:
    shards, counts = await select(index_of(), image("a.jpg"), image("b.jpg"), image("a.jpg"), shard_size=1)
    assert keys(shards) == ["a.jpg", "b.jpg"]
    assert counts.duplicates == 1
    assert counts.listed == 3


async def test_the_limit_counts_what_is_selected_and_ends_the_listing() -> None:
    index = index_of((MADE, [ok_row("0.jpg", MADE), ok_row("1.jpg", MADE)]))
    shards, counts = await select(index, *(image(f"{i}.jpg") for i in range(10)), limit=3, shard_size=2)
    assert keys(shards) == ["2.jpg", "3.jpg", "4.jpg"]
    assert [len(shard.images) for shard in shards] == [2, 1]
    assert (counts.listed, counts.ended) == (5, True)


async def test_the_second_of_two_images_with_one_name_is_refused_by_a_row() -> None:
    shards, counts = await select(index_of(), image("a/x.jpg"), image("a/x.png", "9-9"), image("b/x.png"))
    assert keys(shards) == ["a/x.jpg", "b/x.png"]
    (row,) = (row for shard in shards for row in shard.refused)
    assert (row.key, row.version, row.status, row.code) == ("a/x.png", "9-9", 409, "name_conflict")
    assert (row.options, row.run) == (MADE.digest, LATER_RUN)
    assert "{source_ext}" in row.message
    assert counts.conflicts == 1
    assert counts.selected == 2


async def test_refused_images_fill_shards_as_well() -> None:
    images = [image(f"x.{ending}") for ending in ("jpg", "png", "gif", "tif", "webp")]
    shards, _ = await select(index_of(), *images, shard_size=2)
    assert [(len(shard.images), len(shard.refused)) for shard in shards] == [(1, 1), (0, 2), (0, 1)]


async def test_an_image_done_before_keeps_its_names_wherever_it_is_listed() -> None:
    index = index_of((MADE, [ok_row("x.jpg", MADE), failed_row("y.jpg", MADE)]))
    shards, counts = await select(index, image("x.png"), image("x.jpg"), image("y.png"))
    assert keys(shards) == ["y.png"]
    assert (counts.conflicts, counts.done_before) == (1, 1)


async def test_an_image_does_not_conflict_with_its_own_earlier_version() -> None:
    shards, counts = await select(index_of((MADE, [ok_row("x.jpg", MADE)])), image("x.jpg", "new"))
    assert keys(shards) == ["x.jpg"]
    assert counts.conflicts == 0


async def test_source_ext_in_the_template_avoids_the_conflict() -> None:
    made = outputs(320, 640, name="{folder}{stem}.{source_ext}_{size}.{ext}")
    shards, _ = await select(index_of(made=made), image("x.jpg"), image("x.png"), made=made)
    assert keys(shards) == ["x.jpg", "x.png"]


async def test_results_of_different_sizes_can_conflict_as_well() -> None:
    made = outputs(20, 320, name="{stem}{size}.{ext}")
    shards, counts = await select(index_of(made=made), image("a.jpg"), image("a3.jpg"), made=made)
    assert keys(shards) == ["a.jpg"]
    assert counts.conflicts == 1


async def test_a_name_that_no_result_may_have_is_left_to_whoever_does_the_image() -> None:
    made = outputs(320, name="{folder}{stem}")
    shards, _ = await select(index_of(made=made), image(".vipsrv/x.jpg"), image("a/../b.jpg"), made=made)
    assert keys(shards) == [".vipsrv/x.jpg", "a/../b.jpg"]


async def test_other_options_with_other_names_leave_what_is_done() -> None:
    other = outputs(1280)
    index = index_of((MADE, [ok_row("a.jpg", MADE)]), (other, [ok_row("b.jpg", other, ended=ENDED + 1)]))
    shards, counts = await select(index, image("a.jpg"), image("b.jpg"))
    assert keys(shards) == ["b.jpg"]
    assert counts.done_before == 1


async def test_results_that_other_options_have_replaced_are_done_again() -> None:
    other = outputs(320, quality=50)
    mine = (MADE, [ok_row("a.jpg", MADE), ok_row("b.jpg", MADE)])
    index = index_of(mine, (other, [ok_row("a.jpg", other, ended=ENDED + 1)]))
    assert keys((await select(index, image("a.jpg"), image("b.jpg")))[0]) == ["a.jpg"]
    index = index_of((other, [ok_row("a.jpg", other, ended=ENDED - 1)]), (MADE, [ok_row("a.jpg", MADE)]))
    assert keys((await select(index, image("a.jpg")))[0]) == []


def relation(one: Outputs, other: Outputs) -> Relation:
    assert relation_of(one, other.to_json()) is relation_of(other, one.to_json())
    return relation_of(one, other.to_json())


def test_whether_two_sets_of_options_replace_each_other() -> None:
    fixed = outputs(320)
    assert relation(fixed, outputs(640)) is Relation.NONE
    assert relation(fixed, outputs(640, 320, quality=1)) is Relation.REPLACES
    # The same for an image that is in no folder.
    assert relation(fixed, outputs(320, name="{stem}_{size}.{ext}")) is Relation.REPLACES
    assert relation(fixed, outputs(320, name="{folder}{stem}_{width}x.{ext}")) is Relation.REPLACES
    assert relation(fixed, outputs(320, name="{folder}{stem}-{width}.{ext}")) is Relation.NONE
    jpeg = Outputs((ResizeOptions(width=320, fit=Fit.INSIDE, format=Format.JPEG),))
    automatic = Outputs((ResizeOptions(width=320, fit=Fit.INSIDE, format=Format.AUTO),))
    assert relation(fixed, jpeg) is Relation.NONE
    assert relation(jpeg, automatic) is Relation.REPLACES
    same_ending = Outputs(jpeg.options, "{folder}{stem}_320x.{source_ext}")
    assert relation(jpeg, same_ending) is Relation.REPLACES
    assert relation_of(fixed, '{"name": "{stem}", "options": [{"from_the_future": 1}]}') is Relation.REPLACES


async def test_the_index_is_read_from_a_destination(tmp_path: Path) -> None:
    destination = FolderDestination(tmp_path)
    for number in range(20):
        await write_part(destination, shard_name(RUN, number + 1), MADE, ok_row(f"{number}.jpg", MADE))
    index = DoneIndex(MADE)
    await index.read(Manifest(destination))
    shards, counts = await select(index, *(image(f"{i}.jpg") for i in range(21)))
    await destination.close()
    assert keys(shards) == ["20.jpg"]
    assert counts.done_before == 20


async def test_the_event_loop_goes_on_while_images_are_looked_up() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await select(index_of(), *(image(f"{i}.jpg") for i in range(50)), shard_size=10)
    counting.cancel()
    assert turns > 5


def test_a_temporary_disk_that_is_full_is_told(tmp_path: Path) -> None:
    code = (
        "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))\n"
        "from tests.batch.manifest.test_selection import index_of\n"
        "from vipsrv.errors import StorageFailed\n"
        "index = index_of()\n"
        "try:\n    for i in range(10**7):\n        index.is_new_in_listing(i.to_bytes(16, 'little') * 20)\n"
        "except StorageFailed as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.stdout.startswith("the folder for temporary files: ")
    assert "TMPDIR" in done.stdout
