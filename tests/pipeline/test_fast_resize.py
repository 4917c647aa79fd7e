"""The fast resize gives exact sizes, is as good as thumbnail, and is used only for suitable images."""

import dataclasses
import io
import itertools
import random
from typing import Any

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms, ImageStat

from tests.pipeline.run import resize, run
from tests.support.image_comparison import mean_abs_difference, open_exact, reference, ssim
from tests.support.images import encode, photo
from vipsrv.options import Format, Keep, ResizeOptions
from vipsrv.pipeline import Upload, turbo
from vipsrv.pipeline.formats import jpeg
from vipsrv.pipeline.formats.jpeg.shrink import shrink_factor
from vipsrv.pipeline.probe import read_header
from vipsrv.pipeline.vips.operations import PreparedOperation

SIDES = [1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 250]


def stretched(width: int, height: int, mode: str = "RGB") -> Image.Image:
    return photo().resize((width, height), Image.Resampling.LANCZOS).convert(mode)


def as_thumbnail(encoded: bytes, width: int, height: int) -> Image.Image:
    image = pyvips.Image.thumbnail_buffer(encoded, width, height=height, size="force")
    return open_exact(image.jpegsave_buffer(Q=95, keep="none"))


@pytest.mark.parametrize("source", list(itertools.product(SIDES, [1, 17, 64, 250])))
def test_any_size_from_any_size_is_exact(source: tuple[int, int]) -> None:
    image = encode(stretched(*source), "JPEG", quality=90)
    for size in [(1, 1), (1, 31), (31, 1), (2, 3), source, (source[0] + 1, source[1] + 1), (65, 40)]:
        assert resize(image, *size).size == size


@pytest.mark.parametrize(("width", "height"), [(3000, 1), (1, 3000), (3000, 2), (5, 2999)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_extreme_shapes_are_exact(width: int, height: int, kind: str) -> None:
    image = encode(stretched(width, height), kind)
    for size in [(1, 1), (100, 100), (1, 200), (200, 1), (height, width)]:
        assert resize(image, *size).size == size


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_and_kind_of_jpeg(mode: str, *, progressive: bool, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = encode(stretched(403, 299, mode), "JPEG", quality=92, exif=exif, progressive=progressive)
    for width, height in [(40, 60), (101, 75), (150, 200), (37, 290)]:
        result = resize(image, width, height, quality=95)
        assert result.size == (width, height)
        if mode != "CMYK":  # a print is not 255 minus ink
            assert mean_abs_difference(result, reference(image, width, height)) < 4


@pytest.mark.parametrize("source", [(1607, 1207), (1600, 1200), (1201, 903), (333, 251), (799, 607)])
@pytest.mark.parametrize("factor", [2.0, 2.1, 3.0, 3.9, 4.05, 7.99, 8.04, 12.5])
def test_results_are_as_close_to_the_reference_as_thumbnail(source: tuple[int, int], factor: float) -> None:
    image = encode(stretched(*source), "JPEG", quality=92)
    width, height = (round(side / factor) for side in source)
    wanted = reference(image, width, height)
    likeness = ssim(resize(image, width, height, quality=95), wanted)
    assert likeness >= min(ssim(as_thumbnail(image, width, height), wanted) - 0.01, 0.98)


def test_the_shrink_factor_is_as_large_as_the_target_allows() -> None:
    for scale, target in [(1, (801, 601)), (2, (800, 600)), (2, (401, 301)), (4, (400, 300)), (8, (200, 1))]:
        assert shrink_factor((1600, 1200), target) == scale
    assert shrink_factor((1600, 1200), (20, 1100)) == 1  # the side that is reduced least decides
    assert shrink_factor((8, 8), (1, 1)) == 8


def test_shrink_on_load_cuts_off_less_than_a_sixteenth_of_a_pixel() -> None:
    # At 1/8 the last 7 of 1,607 columns would be lost, nearly a pixel of the result; at 1/4 still 3.
    assert shrink_factor((1607, 1204), (100, 75)) == 2
    assert shrink_factor((1600, 1201), (100, 75)) == 8
    for width, height, target in itertools.product(range(1, 140), (97, 128), (1, 2, 5, 12, 30)):
        for across in {min(width, target), min(width, 3 * target)}:
            scale = shrink_factor((width, height), (across, min(height, target)))
            assert (width % scale) * across <= width / 16
            assert width // scale >= across
            assert height // scale >= min(height, target)
    # Of a large image a quarter of a pixel may be lost, or more if the rest is reduced by at least two.
    assert shrink_factor((16_007, 12_000), (1600, 1200)) == 4


@pytest.mark.parametrize("side", [402, 404, 405, 407, 813])
@pytest.mark.parametrize("kind", ["RGB", "L", "CMYK", "progressive", "rotated", "kept", "libvips"])
def test_a_border_survives_the_shrink_on_load(side: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "libvips":
        monkeypatch.setattr(turbo, "AVAILABLE", False)
    image = Image.new("RGB", (side, side + 2), (30, 30, 30))
    image.paste((255, 255, 255), (3, 3, side - 3, side - 1))
    exif = Image.Exif()
    exif[0x0112] = 6 if kind == "rotated" else 1
    mode = kind if kind in {"L", "CMYK"} else "RGB"
    data = encode(image.convert(mode), "JPEG", quality=95, progressive=kind == "progressive", exif=exif)
    keep = Keep.ALL if kind == "kept" else Keep.NONE
    options = ResizeOptions(width=50, height=50, format=Format.PNG, keep=keep)
    with open_exact(run(data, options).outputs[0].data) as result:
        grey = np.asarray(result.convert("L")).astype(float)
    # Nothing of the first columns and rows is ever lost.
    assert max(grey[25, 0], grey[0, 25]) < 235
    assert grey[25, -1] == pytest.approx(grey[25, 0], abs=20)
    assert grey[-1, 25] == pytest.approx(grey[0, 25], abs=20)


THIN = {(843, 11): (105, 1), (845, 10): (121, 1), (8400, 31): (840, 3), (4000, 47): (400, 4)}


def gradient(width: int, height: int, kind: str, mode: str, **options: Any) -> bytes:
    image = Image.linear_gradient("L").resize((width, height), Image.Resampling.BILINEAR).convert(mode)
    return encode(image, kind, **options)


@pytest.mark.parametrize("thin", THIN)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_nothing_is_lost_of_a_thin_image(thin: tuple[int, int], mode: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    small = ResizeOptions(width=THIN[thin][0], height=THIN[thin][1], format=Format.PNG)
    if orientation == 6:
        small = dataclasses.replace(small, width=small.height, height=small.width)
    larger = dataclasses.replace(small, width=thin[1 if orientation == 6 else 0] // 2)
    lossy: dict[str, Any] = {"quality": 95, "exif": exif}
    kept: dict[str, Any] = {"compression": "raw", "exif": exif}
    wanted = mean_of(run(gradient(*thin, "TIFF", mode, **kept), small).outputs[0].data)
    image = gradient(*thin, "JPEG", mode, **lossy)
    assert mean_of(run(image, small).outputs[0].data) == pytest.approx(wanted, abs=2)
    assert mean_of(run(image, small, larger).outputs[0].data) == pytest.approx(wanted, abs=2)
    if mode == "CMYK":
        return
    assert mean_of(run(gradient(*thin, "PNG", mode, exif=exif), small).outputs[0].data) == pytest.approx(
        wanted, abs=2
    )
    for kind in ("WEBP", "AVIF"):
        other = run(gradient(*thin, kind, mode, quality=95, exif=exif), small).outputs[0].data
        assert mean_of(other) == pytest.approx(wanted, abs=3)


def mean_of(data: bytes) -> float:
    bands = ImageStat.Stat(open_exact(data).convert("RGB")).mean
    return sum(bands) / len(bands)


def test_what_a_shrink_factor_cuts_off_is_a_small_part_of_each_side() -> None:
    for width, height, target in itertools.product(range(1, 600, 7), (8, 11, 97, 640), (1, 2, 5, 30)):
        scale = shrink_factor((width, height), (min(width, target), min(height, target)))
        assert (width % scale) * 64 <= width
        assert (height % scale) * 64 <= height
    # A photo of whole blocks is reduced as far as can be.
    assert shrink_factor((4032, 3024), (100, 75)) == 8


@pytest.mark.parametrize("size", [(1607, 1207), (1600, 1200), (333, 8)])
@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
def test_a_header_opened_at_a_shrink_factor_has_the_whole_size(size: tuple[int, int], shrink: int) -> None:
    image = encode(stretched(*size), "JPEG", restart_marker_rows=1)
    asked = []

    def shrink_for(width: int, height: int) -> int:
        asked.append((width, height))
        return shrink

    opened = read_header(Upload.from_memory(image), shrink_for=shrink_for)
    assert asked == [size]
    assert (opened.info.width, opened.info.height) == size
    assert opened.shrink == shrink
    assert opened.shape[:2] == tuple(side // shrink for side in size)


def test_bytes_between_markers_are_skipped_as_by_libjpeg() -> None:
    # Bytes that are not a marker are skipped.
    image = encode(stretched(1600, 1200), "JPEG")
    opened = read_header(Upload.from_memory(image[:2] + b"\0\0" + image[2:]), shrink_for=lambda *_: 2)
    assert (opened.info.width, opened.info.height, opened.shrink) == (1600, 1200, 2)


def test_a_size_that_libvips_does_not_confirm_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turbo, "AVAILABLE", False)
    image = encode(stretched(1600, 1200), "JPEG")
    monkeypatch.setattr(jpeg, "size_of", lambda _: (160, 120, False))
    opened = read_header(Upload.from_memory(image), shrink_for=lambda *_: 2)
    assert (opened.info.width, opened.info.height, opened.shrink) == (1600, 1200, 1)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_is_opened_again_only_if_its_orientation_changes_the_shrink(
    monkeypatch: pytest.MonkeyPatch, orientation: int
) -> None:
    monkeypatch.setattr(turbo, "AVAILABLE", False)
    opened = []
    for name, reopen in list(jpeg.open_at.items()):

        def counting(source: object, shrink: int, reopen: PreparedOperation = reopen) -> object:
            opened.append(shrink)
            return reopen(source, shrink)

        monkeypatch.setitem(jpeg.open_at, name, counting)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = encode(stretched(1600, 400), "JPEG", exif=exif)
    assert resize(image, 400, 200).size == (400, 200)
    assert opened == ([2] if orientation == 1 else [2, 1])


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize(("width", "height"), [(500, 400), (331, 251), (660, 125), (165, 500)])
def test_enlarging_does_not_shift_the_image(kind: str, width: int, height: int) -> None:
    grain = Image.frombytes("L", (330, 250), random.Random(1).randbytes(330 * 250))
    image = encode(grain, kind, **({"quality": 98} if kind in {"JPEG", "WEBP"} else {}))
    source = Image.open(io.BytesIO(image)).convert("RGB")
    within = min(width, source.width), min(height, source.height)
    wanted = source.resize(within, Image.Resampling.LANCZOS).resize((width, height), Image.Resampling.BICUBIC)
    # Shifted by a quarter of a pixel, grain differs by 20 and more.
    assert mean_abs_difference(resize(image, width, height, quality=98), wanted) < 6


def test_an_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tagged = encode(photo(), "JPEG", quality=92, icc_profile=profile)
    assert resize(tagged, 160, 120) == resize(encode(photo(), "JPEG", quality=92), 160, 120)


def test_an_invalid_profile_is_ignored() -> None:
    plain = resize(encode(photo(), "JPEG", quality=92), 160, 120)
    for profile in [b"no profile", b"\0" * 200]:
        tagged = encode(photo(), "JPEG", quality=92, icc_profile=profile)
        assert mean_abs_difference(resize(tagged, 160, 120), plain) < 0.5
