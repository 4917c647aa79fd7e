"""What is refused of JPEG 2000 and SVG before libvips opens the file. No loader is needed for that."""

import struct

import pytest

from vipsrv.errors import CorruptImage, TooLarge
from vipsrv.pipeline.formats.base import LibvipsReader
from vipsrv.pipeline.formats.registry import format_named
from vipsrv.pipeline.upload import Upload

HEAD = b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x14ftypjp2 " + bytes(8)
"""The first two boxes of a JPEG 2000 file."""


def checked(name: str, data: bytes) -> int:
    """The bytes of memory that the metadata will take."""
    reader = format_named(name).reader
    assert isinstance(reader, LibvipsReader)
    return reader.check_metadata(Upload.from_memory(data))


def codestream(width: int, height: int, tile: int, components: int = 3, *, left: int = 0) -> bytes:
    """The first segment of a JPEG 2000 with tiles of ``tile`` x ``tile``."""
    sizes = (width, height, left, 0, tile, tile, left, 0, components)
    return b"\xff\x4f\xff\x51" + bytes(4) + struct.pack(">8IH", *sizes) + b"\7\1\1" * components


def boxed(data: bytes, size: int) -> bytes:
    """The codestream in its box, whose length is stated so: 0 is "to the end", 1 a long length."""
    long = struct.pack(">Q", 16 + len(data)) if size == 1 else b""
    return HEAD + struct.pack(">I4s", size, b"jp2c") + long + data


@pytest.mark.parametrize("size", [0, 1, 8 + len(codestream(4000, 3000, 1024))])
def test_a_photo_with_some_tiles_is_no_more_than_its_tiles(size: int) -> None:
    whole = codestream(4000, 3000, 1024)
    assert checked("jp2", boxed(whole, size)) == checked("jp2", whole)
    assert 12 * 9_000 < checked("jp2", whole) < 1_000_000


def test_tiles_begin_where_the_image_does() -> None:
    assert checked("jp2", codestream(1_000_100, 100, 100, left=1_000_000)) == checked(
        "jp2", codestream(100, 100, 100)
    )


@pytest.mark.parametrize(
    "data",
    [
        codestream(300, 200, 1),
        codestream(2**32 - 1, 2**32 - 1, 1),
        codestream(100, 100, 10, components=16_384),
        boxed(codestream(300, 200, 1), 0),
    ],
    ids=["60,000 tiles", "as many as can be stated", "many components", "in a box"],
)
def test_a_jpeg_2000_of_too_many_tiles_is_refused(data: bytes) -> None:
    with pytest.raises(TooLarge, match=r"the image has \d+ tiles of \d+ components"):
        checked("jp2", data)


@pytest.mark.parametrize(
    "data",
    [
        codestream(300, 200, 0),
        codestream(300, 200, 100)[:30],
        HEAD,
        HEAD + b"\0\0\0\7free",
        HEAD + b"\0\0\0\x08free" * 2_000 + boxed(codestream(300, 200, 100), 0),
        boxed(b"\xff\x4f\xff\x52" + bytes(60), 0),
    ],
    ids=["no tile size", "cut", "no codestream", "a box shorter than its head", "boxes", "no SIZ"],
)
def test_a_jpeg_2000_whose_tiles_are_not_stated_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptImage):
        checked("jp2", data)


def test_an_svg_has_a_bounded_number_of_elements() -> None:
    group = b"<g><rect/></g>"
    memory = checked("svg", b"<svg>" + group * 49_000 + b"</svg>")
    assert memory > 98_000 * 1_400
    with pytest.raises(TooLarge, match="the SVG has 100003 elements; 100000 are allowed"):
        checked("svg", b"<svg>" + group * 50_001 + b"</svg>")


def test_an_svg_has_a_bounded_size() -> None:
    with pytest.raises(TooLarge, match="the SVG has 16777227 bytes; 16777216 are allowed"):
        checked("svg", b"<svg>" + b" " * (16 << 20) + b"</svg>")
