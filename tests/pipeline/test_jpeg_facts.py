"""The facts of a plain JPEG that are read without libvips are those that libvips reads."""

from typing import Any

import pytest
from PIL import Image

from tests.pipeline.test_corpus import CORPUS
from tests.support.images import adobe_rgb_profile, encode, photo
from vipsrv.errors import RequestError
from vipsrv.pipeline import Upload, turbo
from vipsrv.pipeline.formats.jpeg.facts import MULTISCAN, read_facts
from vipsrv.pipeline.header import ImageHeader
from vipsrv.pipeline.probe import read_header
from vipsrv.pipeline.vips.fields import PROFILE

pytestmark = pytest.mark.skipif(not turbo.AVAILABLE, reason="simplejpeg or cykooz-resizer is not installed")


def headers(data: bytes) -> tuple[ImageHeader, ImageHeader]:
    """The header as it is read for a job, and as libvips reads it."""
    return read_header(Upload.from_memory(data), shrink_for=lambda *_: 1), read_header(
        Upload.from_memory(data)
    )


def compare(data: bytes) -> None:
    header, by_libvips = headers(data)
    assert header.info == by_libvips.info
    assert header.shape == by_libvips.shape
    assert header.has_profile == bool(by_libvips.image.get_typeof(PROFILE))
    assert bool(header.field(MULTISCAN)) == bool(
        by_libvips.field(MULTISCAN) or by_libvips.field("interlaced")
    )


def exif(orientation: object, kind: int = 3) -> bytes:
    """EXIF data whose only entry is the orientation."""
    entry = (
        b"\x12\x01" + kind.to_bytes(2, "little") + b"\1\0\0\0" + int(str(orientation)).to_bytes(4, "little")
    )
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + bytes(4)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"comment": b"a" * 60_000}]
    + [{"exif": exif(orientation)} for orientation in range(1, 9)],
)
def test_a_plain_file_is_not_opened_by_libvips(mode: str, options: dict[str, Any]) -> None:
    data = encode(photo().convert(mode), "JPEG", **options)
    assert read_facts(Upload.from_memory(data)) is not None
    compare(data)


@pytest.mark.parametrize(
    "options",
    [
        {"icc_profile": adobe_rgb_profile()},
        {"exif": exif(9)},
        {"exif": exif(0)},
        {"exif": exif(6, kind=4)},
        {"exif": b"Exif\0\0II*\0\x08\0\0\0\xff\xff"},
        {"exif": b"Exif\0\0nothing"},
        {"exif": b"Exif\0\0"},
    ],
)
def test_libvips_opens_what_is_not_plain(options: dict[str, Any]) -> None:
    data = encode(photo(), "JPEG", **options)
    assert read_facts(Upload.from_memory(data)) is None
    compare(data)


def test_libvips_opens_other_kinds_of_jpeg() -> None:
    rgb = encode(photo(), "JPEG")
    frame = rgb.index(b"\xff\xc0")
    lossless = rgb[:frame] + b"\xff\xc3" + rgb[frame + 2 :]
    deep = rgb[: frame + 4] + b"\x0c" + rgb[frame + 5 :]
    twice = rgb[:frame] + rgb[frame : frame + 19] + rgb[frame:]
    cmyk = encode(Image.new("CMYK", (64, 64)), "JPEG")
    for data in [lossless, deep, twice, cmyk, rgb[: frame + 6], b"\xff\xd8\xff\xe0"]:
        assert read_facts(Upload.from_memory(data)) is None


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not here")
def test_the_facts_of_all_files_of_the_corpus_are_those_of_libvips() -> None:
    compared = 0
    for path in sorted(CORPUS.rglob("*.jp*g")):
        data = path.read_bytes()
        if read_facts(Upload.from_memory(data)) is None:
            continue
        try:
            read_header(Upload.from_memory(data))
        except RequestError:
            continue
        compare(data)
        compared += 1
    assert compared > 10
