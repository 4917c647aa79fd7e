"""Which images the filters take."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from vipsrv.batch.filters import FilteredSource, Filters, has_image_ending
from vipsrv.batch.images import ListedImage
from vipsrv.batch.stores.folder_source import FolderSource
from vipsrv.batch.stores.open_store import open_source


def takes(filters: Filters, key: str) -> bool:
    return filters.accepts(ListedImage(key=key))


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.jpg", ["a.jpg", "x/y/a.jpg", ".jpg"], ["a.JPG", "a.jpg/b", "ajpg", "a.jpgx"]),
        ("*", ["a", "x/y/a.jpg"], []),
        ("a?.jpg", ["ab.jpg", "x/ab.jpg"], ["a.jpg", "abc.jpg", "a/.jpg"]),
        ("[a-c]x", ["ax", "y/bx"], ["dx", "-x"]),
        ("[!a-c]x", ["dx", "^x"], ["ax", "/x"]),
        ("[]x].jpg", ["].jpg", "x.jpg"], ["[.jpg"]),
        ("[!]].jpg", ["x.jpg"], ["].jpg"]),
        ("[\\].jpg", ["\\.jpg"], ["x.jpg"]),
        ("[^a].jpg", ["^.jpg", "a.jpg"], ["b.jpg"]),
        ("*.{jpg,jpe?}", ["a.jpg", "a.jpeg"], ["a.png", "a.jp"]),
        ("{a,b{c,d}}.x", ["a.x", "bc.x", "bd.x"], ["b.x", "cd.x"]),
        ("a,b}.jpg", ["a,b}.jpg"], ["a.jpg"]),
        ("/*.jpg", ["a.jpg"], ["x/a.jpg"]),
        ("x/*.jpg", ["x/a.jpg"], ["x/y/a.jpg", "y/x/a.jpg", "a.jpg"]),
        ("x/**/a.jpg", ["x/a.jpg", "x/y/a.jpg", "x/y/z/a.jpg"], ["a.jpg", "xy/a.jpg", "x/ya.jpg"]),
        ("**/thumbs/**", ["thumbs/a", "x/thumbs/a", "x/thumbs/y/a"], ["thumbs", "x/thumbsy/a"]),
        ("thumbs/", ["thumbs/a", "thumbs/x/a"], ["x/thumbs/a", "thumbs"]),
        ("a**b", ["ab", "axb", "y/axb"], ["a/b"]),
        ("a.b(c)+$^|d", ["a.b(c)+$^|d"], ["axb(c)+$^|d"]),
        ("*", ["a\nb", "x\n/y"], []),
    ],
)
def test_a_pattern(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [key for key in yes if not takes(Filters(include=(pattern,)), key)] == []
    assert [key for key in no if takes(Filters(include=(pattern,)), key)] == []
    assert [key for key in yes if takes(Filters(exclude=(pattern,), any_ending=True), key)] == []


@pytest.mark.parametrize("pattern", ["", "/", "//", "a[b", "{a", "{a/b}", "[z-a]"])
def test_a_pattern_that_cannot_be(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"the pattern '.*' (has|matches)"):
        Filters(include=(pattern,))
    with pytest.raises(ValueError, match="the pattern"):
        Filters(exclude=("*", pattern))


def test_without_a_pattern_the_ending_decides() -> None:
    for key, image in {"x/a.jpg": True, "a.JPEG": True, "a.txt": False, "jpg": False, ".jpg": False}.items():
        assert has_image_ending(key) is image
        assert takes(Filters(), key) is image
        assert takes(Filters(any_ending=True), key)
    assert takes(Filters(include=("*.txt",)), "a.txt")
    assert not takes(Filters(include=("*.txt",)), "a.jpg")


def test_exclude_wins_over_include() -> None:
    filters = Filters(include=("*.jpg", "*.png"), exclude=("thumbs/", "*_small.*"))
    keys = ["a.jpg", "b.png", "thumbs/a.jpg", "x/a_small.jpg", "c.gif", "x/thumbs/d.jpg"]
    assert [key for key in keys if takes(filters, key)] == ["a.jpg", "b.png", "x/thumbs/d.jpg"]


def test_sizes_and_time() -> None:
    filters = Filters(min_bytes=10, max_bytes=20, since=1000)

    def image(size: int | None = 15, modified: int | None = 1000) -> ListedImage:
        return ListedImage(key="a.jpg", size=size, modified=modified)

    assert [size for size in (9, 10, 20, 21, None) if filters.accepts(image(size))] == [10, 20, None]
    assert [time for time in (999, 1000, 1001, None) if filters.accepts(image(modified=time))] == [
        1000,
        1001,
        None,
    ]
    assert Filters(min_bytes=0).accepts(image(0))
    assert not Filters(max_bytes=0).accepts(image(1))


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[FolderSource]:
    for name in ("a.jpg", "b.txt", "c.png"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path)
    opened = FolderSource(tmp_path)
    yield opened
    await opened.close()


async def test_a_filtered_source_is_the_source_with_fewer_images(source: FolderSource) -> None:
    filtered = FilteredSource(source, Filters(exclude=("c*",)))
    assert [image.key async for image in filtered.images()] == ["a.jpg"]
    assert filtered.url == source.url
    assert filtered.left_out.count == 1
    async with filtered.open(ListedImage(key="b.txt")) as path:
        assert path == Path(source.url) / "b.txt"
    await filtered.close()


async def test_what_a_list_names_needs_no_ending(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("https://example.com/image?id=3\na.txt\n")
    listed = open_source(tmp_path / "list.txt")
    assert len([image async for image in FilteredSource(listed, Filters()).images()]) == 2
    assert len([image async for image in FilteredSource(listed, Filters(include=("*.txt",))).images()]) == 1
    await listed.close()
