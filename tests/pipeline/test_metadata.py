"""Metadata, which libvips keeps in memory, several times over: counted, and refused where they are much."""

import struct
from collections.abc import Callable

import pytest

from tests.bombs import jpeg_scans, png, png_chunk
from tests.pictures import jpeg
from tests.pipeline.run import info, resize
from vipsrv import pipeline
from vipsrv.errors import TooLarge
from vipsrv.options import ResizeOptions
from vipsrv.pipeline.cost import predict
from vipsrv.pipeline.header import read_header

MEGA = 1 << 20


def memory(picture: bytes) -> int:
    """Bytes that a small result is told to take beyond the copy of the file."""
    upload = pipeline.Upload.from_memory(picture)
    cost = predict(upload, read_header(upload), [ResizeOptions(width=80, height=60)])
    return cost.memory - len(picture)


def segments(count: int, size: int = 65_533, *, marker: int = 0xE1) -> bytes:
    """As many of a JPEG's segments, each of `size` bytes behind its length."""
    return (bytes([0xFF, marker]) + struct.pack(">H", 2 + size) + bytes(size)) * count


def before(picture: bytes, mark: bytes, more: bytes) -> bytes:
    """`more` in front of where `mark` occurs first."""
    at = picture.index(mark)
    return picture[:at] + more + picture[at:]


def with_head(more: bytes) -> bytes:
    """A JPEG with `more` behind its first marker."""
    small = jpeg(64, 48)
    return small[:2] + more + small[2:]


@pytest.mark.parametrize(
    "make",
    [
        lambda count: with_head(segments(count)),
        lambda count: with_head(segments(count, marker=0xE2)),
        # libjpeg skips what is no marker, and reads on.
        lambda count: with_head(b"junk" + segments(count)),
        lambda count: with_head(b"\xff" * 1000 + segments(count)),
        # Behind the frame header.
        lambda count: before(jpeg(64, 48), b"\xff\xda", segments(count)),
        # So many take memory that hold nothing.
        lambda count: with_head(segments(count * 512, 0)),
    ],
)
def test_metadata_of_a_jpeg_are_bounded_and_counted(make: Callable[[int], bytes]) -> None:
    with pytest.raises(TooLarge, match="more than the 16777216 bytes allowed in front of its pixels"):
        info(make(260))
    much = make(160)
    resize(much, 80, 60)
    # 10 MB, twice.
    assert memory(much) - memory(jpeg(64, 48)) > 20 * MEGA


def test_metadata_between_the_scans_of_a_jpeg_are_bounded() -> None:
    many = jpeg_scans(3, side=64)
    last = many.rindex(b"\xff\xda")
    resize(many[:last] + segments(10) + many[last:], 80, 60)
    with pytest.raises(TooLarge, match="1048576 bytes of metadata behind its first scan"):
        resize(many[:last] + segments(20) + many[last:], 80, 60)
    # Behind the end it is not read.
    resize(many + segments(20), 80, 60)


@pytest.mark.parametrize(
    ("name", "body"),
    [(b"tEXt", b"a\0" + b"b" * MEGA), (b"eXIf", b"II*\0" + bytes(MEGA)), (b"juNk", bytes(MEGA))],
)
def test_all_metadata_of_a_png_are_bounded_and_counted(name: bytes, body: bytes) -> None:
    chunk = png_chunk(name, body)
    with pytest.raises(TooLarge, match="metadata in this png's header take more than the 8388608 bytes"):
        info(png(16, 16, before=chunk * 8))
    much = png(16, 16, before=chunk * 5)
    resize(much, 80, 60)
    # libvips takes four bytes for one.
    assert memory(much) - memory(png(16, 16)) >= 20 * MEGA
