"""Lists of keys as sources."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vipsrv.batch.images import ListedImage
from vipsrv.batch.stores.interface import Source
from vipsrv.batch.stores.key_entries import ListFormat
from vipsrv.batch.stores.open_store import is_key_list, open_source
from vipsrv.errors import StorageFailed

SECOND = 10**9


async def images_of(source: Source) -> list[ListedImage]:
    images = [image async for image in source.images()]
    await source.close()
    return images


async def content_of(source: Source, image: ListedImage) -> bytes:
    async with source.open(image) as content:
        return Path(content).read_bytes() if isinstance(content, Path) else bytes(content)  # type: ignore[arg-type]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "x").mkdir(parents=True)
    for name in ("a.jpg", "x/b c.jpg", "#c.jpg", " d.jpg"):
        (folder / name).write_bytes(name.encode())
    (tmp_path / "other.jpg").write_bytes(b"other")
    return folder


async def test_a_text_has_a_key_path_or_url_a_line(photos: Path, tmp_path: Path) -> None:
    lines = [
        *("a.jpg", "./x/b c.jpg", "", "#c.jpg", " d.jpg", f"{photos}/x/b c.jpg", f"{tmp_path}/other.jpg"),
        *(f"file://{tmp_path}/other.jpg", "https://example.com//y/z.jpg?size=3", "../up.jpg", "a//b.jpg"),
    ]
    (photos / "list.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\n\xff.jpg\n")
    source = open_source(photos / "list.txt")
    images = [image async for image in source.images()]
    other = str(tmp_path / "other.jpg").lstrip("/")
    assert [(image.key, image.location) for image in images] == [
        ("a.jpg", None),
        ("x/b c.jpg", None),
        ("#c.jpg", None),
        (" d.jpg", None),
        ("x/b c.jpg", None),
        (other, f"/{other}"),
        (other, f"file:///{other}"),
        ("example.com/y/z.jpg?size=3", "https://example.com//y/z.jpg?size=3"),
    ]
    assert {image.version for image in images} == {""}
    assert source.left_out.count == 3
    assert [text.partition("entry ")[2].partition(":")[0] for text in source.left_out.examples] == [
        "10",
        "11",
        "12",
    ]
    assert [await content_of(source, image) for image in images[:7]] == [
        b"a.jpg", b"x/b c.jpg", b"#c.jpg", b" d.jpg", b"x/b c.jpg", b"other", b"other",
    ]  # fmt: skip
    await source.close()


async def test_json_lines_may_tell_size_time_and_etag(photos: Path) -> None:
    lines = [
        '{"key": "a.jpg", "size": 5, "modified": "2026-01-02T03:04:05.5Z", "etag": "\\"abc\\""}',
        '{"path": "b.jpg", "last_modified": 1700000000.25, "more": [1]}',
        '{"url": "s3://bucket/c.jpg", "size": null, "e_tag": "x-2"}',
        "not json", "[1]", '{"size": 3}', '{"key": 7}', '{"key": "a", "size": -1}',
        '{"key": "a", "size": true}',
        "[" * 100_000, '{"key": "a", "size": 9223372036854775808}',
        '{"key": "a", "modified": "yesterday"}', '{"key": "a", "etag": 7}', '{"key": "\\ud800.jpg"}',
    ]  # fmt: skip
    (photos / "list.jsonl").write_text("\n".join(lines))
    source = open_source(photos / "list.jsonl")
    assert await images_of(source) == [
        ListedImage(
            key="a.jpg",
            size=5,
            modified=int(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()) * SECOND + SECOND // 2,
            etag="abc",
        ),
        ListedImage(key="b.jpg", modified=1_700_000_000 * SECOND + SECOND // 4),
        ListedImage(key="bucket/c.jpg", etag="x-2", location="s3://bucket/c.jpg"),
    ]
    assert source.left_out.count == 11
    assert "entry 4: it is not JSON" in source.left_out.examples[0]


async def test_parquet_is_read_in_batches(photos: Path) -> None:
    time = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    many = 12_345
    table = pa.table(
        {
            "bucket": ["b"] * many,
            "key": [f"{number}.jpg" for number in range(many)],
            "size": [None, *range(1, many)],
            "last_modified_date": [time] * many,
            "e_tag": [str(number) for number in range(many)],
        }
    )
    pq.write_table(table, photos / "inventory.parquet")
    images = await images_of(open_source(photos / "inventory.parquet"))
    assert [image.key for image in images] == [f"{number}.jpg" for number in range(many)]
    assert images[7] == ListedImage(
        key="7.jpg",
        size=7,
        modified=int(time.replace(microsecond=0).timestamp()) * SECOND + 678_000,
        etag="7",
    )
    assert images[0].size is None


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.parquet", b"PAR1 no", "it is not a Parquet file"),
        ("b.parquet", {"name": ["x"]}, "it has none of the columns key, path, url"),
    ],
)
async def test_a_list_without_keys_stops_the_batch(
    photos: Path, name: str, content: bytes | dict[str, list[str]], text: str
) -> None:
    if isinstance(content, bytes):
        (photos / name).write_bytes(content)
    else:
        pq.write_table(pa.table(content), photos / name)
    with pytest.raises(StorageFailed, match=rf"{name}: the list of keys cannot be read: {text}"):
        await images_of(open_source(photos / name))


async def test_the_base_may_be_elsewhere_and_the_url_opens_it_without_the_list(
    photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("a.jpg\n/nothing/z.jpg\n")
    source = open_source(tmp_path / "keys", base=photos, list_format=ListFormat.TEXT)
    image, missing = await images_of(source)
    (tmp_path / "keys").unlink()
    again = open_source(source.url)
    assert again.url == source.url
    assert await content_of(again, image) == b"a.jpg"
    with pytest.raises(FileNotFoundError):
        await content_of(again, missing)
    with pytest.raises(StorageFailed, match="the list of keys cannot be read: No such file"):
        await images_of(again)


async def test_what_is_a_list(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    assert not is_key_list(tmp_path / "folder.txt")
    assert not is_key_list(photos)
    assert not is_key_list("s3://bucket/prefix")
    assert all(is_key_list(where) for where in ("-", "x.TXT", "s3://b/x.ndjson", "https://h/a.parquet"))
    assert is_key_list("keys", ListFormat.TEXT)
    with pytest.raises(StorageFailed, match="there is no such list of keys"):
        open_source(photos / "nothing.txt")
    with pytest.raises(ValueError, match="is no list of keys, so there is nothing relative"):
        open_source(photos, base=tmp_path)
    with pytest.raises(ValueError, match="cannot be read from standard input"):
        open_source("-", list_format=ListFormat.PARQUET)


READS_STANDARD_INPUT = """
import asyncio, json, sys
from vipsrv.batch.stores.open_store import open_source
async def main():
    source = open_source("-", base=sys.argv[1])
    async for image in source.images():
        async with source.open(image) as path:
            print(image.key, path.read_text(), flush=True)
        if image.key == "a.jpg":
            return
asyncio.run(main())
"""


def test_standard_input_is_read_and_need_not_end(photos: Path) -> None:
    def start(stdin: int) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", READS_STANDARD_INPUT, str(photos)]
        return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, text=True)

    reader, writer = os.pipe()
    process = start(reader)
    os.close(reader)
    os.write(writer, b"x/b c.jpg\na.jpg\nx/b")  # and more to come
    output, _ = process.communicate(timeout=60)  # it ends, though its input has not
    os.close(writer)
    assert process.returncode == 0
    assert output.splitlines() == ["x/b c.jpg x/b c.jpg", "a.jpg a.jpg"]


async def test_a_list_of_many_keys_is_streamed(photos: Path) -> None:
    with (photos / "many.jsonl").open("w") as file:
        for number in range(30_000):
            print(json.dumps({"key": f"{number}.jpg", "size": number}), file=file)
    source = open_source(photos / "many.jsonl")
    images = source.images()
    assert [(await anext(images)).size for _ in range(3)] == [0, 1, 2]
    assert source.left_out.count == 0
    with (photos / "many.jsonl").open("r+b") as file:
        file.truncate(1_000_000)  # what was not read yet is not held anywhere
    assert len([image async for image in images]) < 29_000
    await source.close()
