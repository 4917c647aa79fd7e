"""The header of a JPEG is read as libjpeg wrote it."""

import io
from typing import Any

import pytest

from bench.jpeg_header import read_header
from tests.support.images import photo


def saved(**options: Any) -> bytes:
    data = io.BytesIO()
    photo(64, 48).save(data, "JPEG", **({"quality": 85, "optimize": False} | options))
    return data.getvalue()


def test_the_size_is_that_of_the_image() -> None:
    header = read_header(saved())
    assert (header.width, header.height) == (64, 48)


@pytest.mark.parametrize(("subsampling", "name"), [(0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0")])
def test_the_subsampling_has_its_usual_name(subsampling: int, name: str) -> None:
    assert read_header(saved(subsampling=subsampling)).subsampling == name


def test_a_grey_image_has_no_subsampling() -> None:
    data = io.BytesIO()
    photo(64, 48).convert("L").save(data, "JPEG")
    assert read_header(data.getvalue()).subsampling == "grey"


@pytest.mark.parametrize("quality", [1, 50, 84, 85, 86, 95])
def test_the_quality_is_found_by_the_tables(quality: int) -> None:
    assert read_header(saved(quality=quality)).quality == quality


def test_tables_that_libjpeg_does_not_make_have_no_quality() -> None:
    tables = [list(range(1, 65)), list(range(2, 66))]
    assert read_header(saved(quality=-1, qtables=tables)).quality is None


@pytest.mark.parametrize("optimised", [False, True])
def test_optimised_huffman_tables_are_told_from_the_standard_ones(optimised: bool) -> None:  # noqa: FBT001
    assert read_header(saved(optimize=optimised)).optimised == optimised


def test_a_progressive_image_is_told() -> None:
    assert read_header(saved(progressive=True)).progressive
    assert not read_header(saved()).progressive


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"GIF89a", "no JPEG"), (b"\xff\xd8\xff\xd9", "ends early"), (b"\xff\xd8abcd", "no marker")],
)
def test_what_has_no_header_is_an_error(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_header(data)


@pytest.mark.parametrize("body", [b"\x08\x00\x10\x00\x10", b"\x08\x00\x10\x00\x10\x03\x01\x22\x00"])
def test_a_frame_that_is_cut_is_an_error(body: bytes) -> None:
    frame = b"\xff\xc0" + (len(body) + 2).to_bytes(2) + body
    with pytest.raises(ValueError, match="the frame is cut short"):
        read_header(b"\xff\xd8" + frame + b"\xff\xda\x00\x02")


def test_a_header_that_is_cut_is_an_error() -> None:
    with pytest.raises(ValueError, match="ends early"):
        read_header(saved()[:100])
