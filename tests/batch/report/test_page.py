"""The page of a report: complete, escaped, and needing nothing else. How it looks: tests/system/browser."""

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.batch_rows import RUN, failed_row, ok_row, outputs, write_part
from vipsrv.batch.manifest.layout import shard_name
from vipsrv.batch.manifest.manifest import Manifest
from vipsrv.batch.manifest.run_record import RunEnd, RunRecord
from vipsrv.batch.report.page import report_page
from vipsrv.batch.report.status import status_of
from vipsrv.batch.stores.folder_destination import FolderDestination
from vipsrv.batch.stores.interface import Destination

MADE = outputs(320, 640)
HOSTILE = "<img src=x onerror=alert(1)>/'\"><script>alert(2)</script>&amp;\u202e\x1b[2J</td>"
VOID = {"meta", "br"}


class Elements(HTMLParser):
    """Reads a page: its elements, their attributes, its text, and whether every element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
async def destination(tmp_path: Path) -> AsyncIterator[Destination]:
    made = FolderDestination(tmp_path / "a <b> & 'c'")
    yield made
    await made.close()


async def page_of(destination: Destination) -> str:
    page = report_page(await status_of(destination))
    elements = Elements(page)
    assert elements.open == []
    assert set(elements.tags) <= {
        *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "h1", "h2", "p"),
        *("dl", "div", "dt", "dd", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "i", "b", "br"),
        *("figure", "figcaption", "span", "svg", "path", "rect", "text", "details", "summary", "code"),
    }
    assert not [name for name, _ in elements.attributes if name in {"src", "href"} or name.startswith("on")]
    assert "url(" not in page
    assert "http" not in re.sub(r"http-equiv", "", page)
    return page


async def test_an_empty_destination_has_a_page(destination: Destination) -> None:
    assert "No image was done for this destination yet." in await page_of(destination)


async def test_a_page_has_what_a_person_looks_for(destination: Destination) -> None:
    rows = [ok_row(f"{i}.jpg", MADE) for i in range(30)]
    failures = [failed_row(f"bad-{i}.jpg", MADE) for i in range(60)]
    await write_part(destination, shard_name(RUN, 1), MADE, *rows, *failures)
    record = RunRecord.begin(RUN, source="/photos", outputs=MADE)
    ended = record.with_end(RunEnd.FAILED, reason="disk full", listed=90, listing_done=True, skipped=0)
    await Manifest(destination).write_run(ended)
    page = await page_of(destination)
    text = " ".join(Elements(page).text)
    for expected in (
        *("30", "60 results", "67 %", "300 kB", "60 kB", "20 % of before", "corrupt_image", "422"),
        *("Bytes of the results per byte of the image", "webp", "/photos", "disk full", MADE.digest),
        *("the file ends too early", "50 of them listed", "--failures FILE", "bad-0.jpg"),
    ):
        assert expected in text, expected
    assert "bad-59.jpg" not in text
    assert page.count("<svg") == 2


async def test_text_from_outside_is_text(destination: Destination) -> None:
    name = "{folder}{stem}_<script>{size}.{ext}"
    made = outputs(320, name=name)
    key = HOSTILE.replace("/", "").replace("\0", "")
    await write_part(
        destination,
        shard_name(RUN, 1),
        made,
        ok_row(key, made),
        failed_row(f"{key}2", made, code="<b>code</b>", message=HOSTILE),
    )
    record = RunRecord.begin(RUN, source=HOSTILE, outputs=made)
    await Manifest(destination).write_run(
        record.with_end(RunEnd.FAILED, reason=HOSTILE, listed=0, listing_done=False, skipped=0)
    )
    page = await page_of(destination)
    text = "".join(Elements(page).text)
    assert "<img src=x onerror=alert(1)>" in text
    assert "<b>code</b>" in text
    assert destination.url in text
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "\\u202e" in page


async def test_a_key_of_any_length_takes_a_bounded_place(destination: Destination) -> None:
    await write_part(
        destination, shard_name(RUN, 1), MADE, failed_row("k" * 100_000, MADE, message="m" * 100_000)
    )
    assert len(await page_of(destination)) < 30_000


async def test_the_charts_have_any_range(destination: Destination) -> None:
    for number, sizes in enumerate(([1], [10**12], [7, 10**6, 10**15], range(1, 400)), 1):
        rows = [ok_row(f"{number}-{size}.jpg", MADE, size=size) for size in sizes]
        await write_part(destination, shard_name(RUN, number), MADE, *rows)
        page = await page_of(destination)
        for name in ("x", "y", "width", "height"):
            for value in re.findall(rf'<rect[^>]* {name}="([^"]*)"', page):
                assert 0 <= float(value) <= 520
