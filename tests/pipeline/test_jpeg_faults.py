"""JPEG: unusual and incomplete files are decoded whole, or refused with the reason."""

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.run import LIMITS, refusal, run
from tests.support.image_comparison import mean_abs_difference, open_exact
from tests.support.images import encode, photo
from tests.support.lossless_jpeg import lossless_jpeg
from vipsrv import pipeline
from vipsrv.errors import CorruptImage, UnsupportedFormat
from vipsrv.options import Format, Keep, ResizeOptions

KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "420": {"subsampling": 2},
    "restarts": {"restart_marker_blocks": 3},
    "restarts-of-rows": {"restart_marker_rows": 1, "subsampling": 2},
    "grey": {"mode": "L"},
    "progressive-grey": {"mode": "L", "progressive": True},
    "cmyk": {"mode": "CMYK"},
}


def jpeg(kind: str) -> bytes:
    options = dict(KINDS[kind])
    return encode(photo(300, 200).convert(options.pop("mode", "RGB")), "JPEG", quality=85, **options)


def small(data: bytes, **options: Any) -> Image.Image:
    wanted = ResizeOptions(**{"width": 75, "height": 50, "format": Format.PNG, **options})
    return open_exact(run(data, wanted).outputs[0].data)


def ramps(bands: int, precision: int = 8) -> Any:
    rows, columns = np.mgrid[0:200, 0:300]
    most = (1 << precision) - 1
    return np.stack([(columns if band % 2 else rows) * most // 299 for band in range(bands)], axis=2)


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("side", [2, 4, 10])
def test_a_lossless_jpeg_is_decoded_whole(bands: int, side: int) -> None:
    data = lossless_jpeg(ramps(bands))
    size = {"width": 300 // side, "height": 200 // side}
    if bands == 4:  # a print; its colours are another matter
        pixels = np.asarray(small(data, **size).convert("L")).astype(int)
        assert abs(pixels[0, 0] - pixels[-1, -1]) > 40
        return
    wanted = Image.fromarray(ramps(bands).astype(np.uint8).squeeze()).convert("RGB")
    wanted = wanted.resize((size["width"], size["height"]), Image.Resampling.LANCZOS)
    for options in ({}, {"keep": Keep.ALL}, {"format": Format.JPEG, "quality": 97, "max_bytes": 90_000}):
        with small(data, **size, **options) as seen:
            assert mean_abs_difference(seen.convert("RGB"), wanted) < 3
    first = ResizeOptions(width=size["width"], height=size["height"], format=Format.PNG)
    for output in run(data, first, dataclasses.replace(first, width=size["width"] // 2)).outputs:
        assert np.asarray(open_exact(output.data).convert("L")).max() > 150


@pytest.mark.parametrize("precision", [10, 12, 16])
def test_a_jpeg_of_more_bits_is_unsupported(precision: int) -> None:
    error = refusal(lossless_jpeg(ramps(3, precision), precision))
    assert isinstance(error, UnsupportedFormat)
    assert f"{precision} bits" in error.message


@pytest.mark.parametrize("marker", [0xC5, 0xC7, 0xCD])
def test_a_hierarchical_jpeg_is_unsupported(marker: int) -> None:
    error = refusal(lossless_jpeg(ramps(3), marker=marker))
    assert isinstance(error, UnsupportedFormat)
    assert "hierarchical" in error.message


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_without_its_end_marker_is_whole(kind: str) -> None:
    data = jpeg(kind)
    wanted = small(data).convert("RGB")
    for cut in (data[:-2], data[:-1], data[:-2] + bytes(40), data[:-2] + b"rest of the disc"):
        assert mean_abs_difference(small(cut).convert("RGB"), wanted) == 0
        assert mean_abs_difference(small(cut, keep=Keep.ALL).convert("RGB"), wanted) < 1


def test_a_lossless_jpeg_without_its_end_marker_is_whole() -> None:
    data = lossless_jpeg(ramps(3), end=b"")
    wanted = small(lossless_jpeg(ramps(3)))
    assert mean_abs_difference(small(data).convert("RGB"), wanted.convert("RGB")) == 0
    assert isinstance(refusal(data[:-40]), CorruptImage)


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_that_ends_early_is_refused(kind: str) -> None:
    data = jpeg(kind)
    ends = {len(data) * part // 16 for part in range(1, 16)} | {len(data) - left for left in (6, 12, 40)}
    if "progressive" in kind:
        # Between two scans, and within the tables of the next one.
        scans = [at for at in range(len(data)) if data.startswith((b"\xff\xda", b"\xff\xc4"), at)]
        ends |= set(scans[2:]) | {at + 5 for at in scans[2:]}
    for end in sorted(ends):
        error = refusal(data[:end])
        assert isinstance(error, CorruptImage), end
        assert "premature end" in error.message


def test_extraneous_bytes_are_no_error() -> None:
    for kind in KINDS:
        data = jpeg(kind)
        tables = data.index(b"\xff\xdb")
        for odd in (data[:tables] + b"extra" + data[tables:], data[:-2] + b"extra" + data[-2:]):
            assert small(odd).size == (75, 50)


def test_the_reason_is_not_a_warning_before_it() -> None:
    data = bytearray(jpeg("baseline"))
    data[11:13] = b"\x12\x13"  # the version of JFIF
    error = refusal(bytes(data[: len(data) // 2]))
    assert error is not None
    assert "premature end" in error.message


def test_a_file_too_large_to_be_completed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vipsrv.pipeline.formats.jpeg.completion._MAX_SIZE", 100)
    assert isinstance(refusal(jpeg("baseline")[:-2]), CorruptImage)


def test_truncated_images_are_tolerated_as_before() -> None:
    tolerant = dataclasses.replace(LIMITS, tolerate_truncated=True)
    data = jpeg("baseline")
    upload = pipeline.Upload.from_memory(data[: len(data) // 2])
    (output,) = pipeline.resize(upload, [ResizeOptions(width=75, height=50)], config=tolerant).outputs
    with Image.open(io.BytesIO(output.data)) as result:
        assert result.size == (75, 50)
