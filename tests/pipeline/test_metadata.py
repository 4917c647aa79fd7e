"""Metadata, which libvips keeps in memory several times over, count as memory and are limited."""

import struct
from collections.abc import Callable

import pytest

from tests.pipeline.run import info, resize
from tests.support.bombs import jpeg_scans, png, png_chunk, tiff_fields
from tests.support.images import jpeg
from vipsrv import pipeline
from vipsrv.errors import TooLarge
from vipsrv.options import ResizeOptions
from vipsrv.pipeline.cost import predict
from vipsrv.pipeline.formats.tiff.directory import MetadataSizes, metadata_sizes
from vipsrv.pipeline.probe import read_header

MEGA = 1 << 20


def memory(image: bytes) -> int:
    """The predicted bytes for a small result, without the copy of the file."""
    upload = pipeline.Upload.from_memory(image)
    cost = predict(upload, read_header(upload), [ResizeOptions(width=80, height=60)])
    return cost.memory - len(image)


def segments(count: int, size: int = 65_533, *, marker: int = 0xE1) -> bytes:
    """`count` segments of a JPEG, with `size` bytes each after the length."""
    return (bytes([0xFF, marker]) + struct.pack(">H", 2 + size) + bytes(size)) * count


def before(image: bytes, mark: bytes, more: bytes) -> bytes:
    """Insert `more` before the first `mark`."""
    at = image.index(mark)
    return image[:at] + more + image[at:]


def with_head(more: bytes) -> bytes:
    """A JPEG with `more` after its first marker."""
    small = jpeg(64, 48)
    return small[:2] + more + small[2:]


@pytest.mark.parametrize(
    "make",
    [
        lambda count: with_head(segments(count)),
        lambda count: with_head(segments(count, marker=0xE2)),
        # libjpeg skips bytes that are not a marker.
        lambda count: with_head(b"junk" + segments(count)),
        lambda count: with_head(b"\xff" * 1000 + segments(count)),
        # After the frame header.
        lambda count: before(jpeg(64, 48), b"\xff\xda", segments(count)),
        # Many empty segments take memory, too.
        lambda count: with_head(segments(count * 512, 0)),
    ],
)
def test_metadata_of_a_jpeg_are_bounded_and_counted(make: Callable[[int], bytes]) -> None:
    with pytest.raises(TooLarge, match="more than the 16777216 bytes allowed before its pixels"):
        info(make(260))
    much = make(160)
    resize(much, 80, 60)
    # 10 MB, twice.
    assert memory(much) - memory(jpeg(64, 48)) > 20 * MEGA


def test_metadata_between_the_scans_of_a_jpeg_are_bounded() -> None:
    many = jpeg_scans(3, side=64)
    last = many.rindex(b"\xff\xda")
    resize(many[:last] + segments(10) + many[last:], 80, 60)
    with pytest.raises(TooLarge, match="1048576 bytes allowed"):
        resize(many[:last] + segments(20) + many[last:], 80, 60)
    # Metadata after the end are not read.
    resize(many + segments(20), 80, 60)


@pytest.mark.parametrize(
    ("name", "body"),
    [(b"tEXt", b"a\0" + b"b" * MEGA), (b"eXIf", b"II*\0" + bytes(MEGA))],
)
def test_metadata_of_a_png_are_bounded_and_counted(name: bytes, body: bytes) -> None:
    chunk = png_chunk(name, body)
    with pytest.raises(TooLarge, match="metadata in this png's header take more than the 8388608 bytes"):
        info(png(16, 16, before=chunk * 8))
    much = png(16, 16, before=chunk * 5)
    resize(much, 80, 60)
    # libvips takes four bytes per byte.
    assert memory(much) - memory(png(16, 16)) >= 20 * MEGA


def test_private_chunks_of_a_png_do_not_count() -> None:
    much = png(16, 16, before=png_chunk(b"juNk", bytes(MEGA)) * 20)
    resize(much, 80, 60)
    assert memory(much) == memory(png(16, 16))


DESCRIPTION, PROFILE, LAYERS, STRIPS = 270, 34_675, 37_724, 273


@pytest.mark.parametrize("kind", [1, 2, 7])  # bytes, text, undefined: libtiff treats all of them as text
def test_the_description_of_a_tiff_is_bounded_and_counted(kind: int) -> None:
    much = tiff_fields({DESCRIPTION: (kind, 6 * MEGA)})
    resize(much, 80, 60)
    assert memory(much) - memory(tiff_fields({})) >= 6 * 6 * MEGA
    with pytest.raises(TooLarge, match="more metadata than allowed: 8388608 bytes of descriptions"):
        info(tiff_fields({DESCRIPTION: (kind, 9 * MEGA)}))
    # The same again on each page.
    with pytest.raises(TooLarge, match="more metadata than allowed"):
        info(tiff_fields({DESCRIPTION: (kind, MEGA)}, pages=10))


def test_other_fields_of_a_tiff_are_bounded_and_counted() -> None:
    much = tiff_fields({PROFILE: (7, MEGA), LAYERS: (7, 20 * MEGA)})
    resize(much, 80, 60)
    assert memory(much) - memory(tiff_fields({})) > 20 * MEGA
    with pytest.raises(TooLarge, match="67108864 of other fields"):
        info(tiff_fields({LAYERS: (7, 2 * MEGA)}, pages=40))
    # Fields that are too long for libtiff (often layers) or beyond the end of the file are not read.
    assert memory(tiff_fields({LAYERS: (7, 70 * MEGA)})) == memory(tiff_fields({}))
    info(tiff_fields({LAYERS: (7, 20 * MEGA)}, pages=40)[: -20 * MEGA])


def test_strip_offsets_of_a_tiff_are_not_metadata() -> None:
    upload = pipeline.Upload.from_memory(tiff_fields({STRIPS: (4, 4 * MEGA)}))
    assert list(metadata_sizes(upload)) == [MetadataSizes(description=0, others=0)]
