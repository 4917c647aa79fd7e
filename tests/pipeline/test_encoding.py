"""How results are encoded: progressive, chroma, palette, optimize; and JPEG XL, which some libvips write."""

import io
from typing import Any

import pytest
from PIL import Image, JpegImagePlugin

from tests.pipeline.run import LIMITS, run, sample
from tests.support.image_comparison import mean_abs_difference, open_exact, ssim
from tests.support.images import alpha_photo, encode, jpeg, photo
from vipsrv import pipeline
from vipsrv.errors import BadRequest
from vipsrv.options import Format, ImageInfo, ResizeOptions
from vipsrv.pipeline.cost import Cost, predict
from vipsrv.pipeline.output_format import likely_writer
from vipsrv.pipeline.probe import read_header

WIDTH, HEIGHT = 300, 200
_NO_IMAGE = ImageInfo(format="jpeg", width=1, height=1, pages=1, has_alpha=False, orientation=1, size=1)

# get_sampling of Pillow → the name of the chroma.
SAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}


def made(image: bytes | None = None, /, **options: Any) -> pipeline.Output:
    image = sample("jpeg") if image is None else image
    (output,) = run(image, ResizeOptions(**({"width": WIDTH, "height": HEIGHT} | options))).outputs
    return output


def opened(image: bytes | None = None, /, **options: Any) -> Image.Image:
    return open_exact(made(image, **options).data)


def refused(image: bytes | None = None, /, **options: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        made(image, **options)
    return caught.value.message


def chroma_of(image: Image.Image) -> str:
    assert isinstance(image, JpegImagePlugin.JpegImageFile) or image.format == "JPEG"
    return SAMPLINGS[JpegImagePlugin.get_sampling(image)]


def cost(**options: Any) -> Cost:
    upload = pipeline.Upload.from_memory(jpeg(64, 48))
    asked = ResizeOptions(**({"width": 1000, "height": 1000} | options))
    return predict(upload, read_header(upload), [asked])


# Progressive


@pytest.mark.parametrize(("progressive", "expected"), [(None, False), (False, False), (True, True)])
@pytest.mark.parametrize("source", ["jpeg", "png", "webp"])
def test_a_jpeg_is_progressive_if_asked(source: str, *, progressive: bool | None, expected: bool) -> None:
    assert bool(opened(sample(source), progressive=progressive).info.get("progressive")) is expected


def test_a_progressive_jpeg_looks_the_same_and_is_smaller() -> None:
    plain, progressive = (made(width=800, height=600, progressive=one) for one in (False, True))
    assert len(progressive.data) < len(plain.data)
    assert mean_abs_difference(open_exact(plain.data), open_exact(progressive.data)) < 1


@pytest.mark.parametrize("kind", ["png", "gif"])
def test_a_png_and_a_gif_are_interlaced_if_asked(kind: str) -> None:
    plain, interlaced = (made(format=kind, progressive=one).data for one in (None, True))
    assert [_is_interlaced(one) for one in (plain, interlaced)] == [False, True]
    assert mean_abs_difference(open_exact(plain), open_exact(interlaced)) == 0


def _is_interlaced(data: bytes) -> bool:
    if data.startswith(b"\x89PNG"):
        return data[28] == 1  # of IHDR
    start = data.index(b",\0\0\0\0")  # the image descriptor
    return bool(data[start + 9] & 0x40)


@pytest.mark.parametrize("kind", ["webp", "avif", "tiff"])
def test_other_formats_ignore_progressive(kind: str) -> None:
    assert made(format=kind, progressive=True).data == made(format=kind).data


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif"])
def test_progressive_results_have_their_cost(kind: str) -> None:
    plain, progressive = (cost(format=kind, progressive=one) for one in (False, True))
    assert progressive.memory > plain.memory
    assert progressive.seconds >= plain.seconds
    assert kind != "jpeg" or progressive.seconds > 2 * plain.seconds


# Chroma


@pytest.mark.parametrize("extra", [{}, {"progressive": True}, {"max_bytes": 10**6}, {"keep": "all"}])
@pytest.mark.parametrize(
    ("quality", "chroma", "expected"),
    [
        (85, "auto", "4:2:0"),
        (85, "4:4:4", "4:4:4"),
        (95, "auto", "4:4:4"),
        (95, "4:2:0", "4:2:0"),
    ],
)
def test_the_chroma_of_a_jpeg(quality: int, chroma: str, expected: str, extra: dict[str, Any]) -> None:
    assert chroma_of(opened(quality=quality, chroma=chroma, **extra)) == expected


def test_a_large_jpeg_has_the_chroma_that_was_asked() -> None:
    image = encode(photo(64, 48), "PNG")
    for chroma in ("4:4:4", "4:2:0"):
        # More pixels than are put into memory to be encoded.
        assert chroma_of(opened(image, width=1700, height=1300, chroma=chroma)) == chroma


def test_whole_colours_keep_coloured_lines_in_an_avif() -> None:
    lines = Image.new("RGB", (64, 64), "blue")
    lines.paste("red", (0, 0, 64, 1))
    for row in range(0, 64, 2):
        lines.paste("red", (0, row, 64, row + 1))
    original = encode(lines, "PNG")
    half, full = (
        opened(original, width=64, height=64, format="avif", quality=70, chroma=chroma)
        for chroma in ("4:2:0", "4:4:4")
    )
    assert mean_abs_difference(full, lines) < mean_abs_difference(half, lines) / 2


def test_webp_has_no_whole_colours() -> None:
    assert refused(format="webp", chroma="4:4:4") == (
        "chroma: webp cannot be 4:4:4; choose one of: jpeg, avif"
        + (", jxl" if "jxl" in pipeline.written_formats() else "")
    )
    assert made(format="webp", chroma="4:2:0").data == made(format="webp").data
    assert made(format="webp", chroma="4:4:4", lossless=True).data == made(format="webp", lossless=True).data
    assert made(sample("webp"), format="auto", chroma="4:4:4").info.format == "webp"


@pytest.mark.parametrize("kind", ["png", "tiff", "gif"])
@pytest.mark.parametrize("chroma", ["4:2:0", "4:4:4"])
def test_formats_without_chroma_ignore_it(kind: str, chroma: str) -> None:
    assert made(format=kind, chroma=chroma).data == made(format=kind).data


# Optimize


def test_optimize_and_effort_choose_huffman_tables() -> None:
    sizes = {
        (effort, optimize): len(made(effort=effort, optimize=optimize).data)
        for effort in (None, 9)
        for optimize in (None, False, True)
    }
    plain, optimised = sizes[None, None], sizes[9, None]
    assert optimised < 0.99 * plain
    assert sizes[None, True] == sizes[9, True] == optimised
    assert sizes[None, False] == sizes[9, False] == plain
    assert mean_abs_difference(opened(), opened(optimize=True)) < 2


def test_the_predicted_time_follows_optimize() -> None:
    assert cost(optimize=True) == cost(effort=9)
    assert cost(optimize=False, effort=9) == cost()
    assert cost(format="webp", optimize=True) == cost(format="webp")


def test_a_fast_jpeg_stays_fast() -> None:
    """Neither chroma nor the default of any of these options needs libvips."""
    jpeg_writer = likely_writer(Format.JPEG, _NO_IMAGE)

    def is_plain(**options: Any) -> bool:
        return jpeg_writer.is_plain(ResizeOptions(width=8, height=8, **options))

    assert is_plain()
    assert is_plain(chroma="4:4:4", progressive=False, optimize=False, effort=3)
    assert not is_plain(progressive=True)
    assert not is_plain(optimize=True)
    assert not is_plain(keep="icc")


# Palette


def test_a_png_with_a_palette() -> None:
    whole, result = made(format="png"), made(format="png", palette=True)
    image = open_exact(result.data)
    assert image.mode == "P"
    assert image.size == (WIDTH, HEIGHT)
    assert result.info.quality == LIMITS.quality
    assert whole.info.quality == 100
    assert len(result.data) < 0.6 * len(whole.data)
    assert ssim(image.convert("L"), open_exact(whole.data).convert("L")) > 0.9


def test_the_quality_of_a_palette() -> None:
    high, low = (made(format="png", palette=True, quality=one) for one in (95, 20))
    assert (high.info.quality, low.info.quality) == (95, 20)
    assert len(low.data) < len(high.data)
    colours = [len(open_exact(one.data).convert("RGB").getcolors(256) or ()) for one in (high, low)]
    assert 1 < colours[1] < colours[0] <= 256


def test_a_palette_fits_into_max_bytes() -> None:
    limit = int(0.8 * len(made(format="png", palette=True).data))
    result = made(format="png", palette=True, max_bytes=limit)
    assert len(result.data) <= limit
    assert result.info.quality < LIMITS.quality


def test_a_palette_keeps_transparency() -> None:
    image = opened(encode(alpha_photo(WIDTH, HEIGHT), "PNG"), format="png", palette=True)
    assert image.mode == "P"
    alpha = image.convert("RGBA").getchannel("A")
    expected = alpha_photo(WIDTH, HEIGHT).getchannel("A")
    assert mean_abs_difference(alpha.convert("RGB"), expected.convert("RGB")) < 8


def test_the_effort_of_a_palette_is_that_of_its_choice() -> None:
    fast, slow = (made(format="png", palette=True, effort=one) for one in (1, 9))
    assert fast.data != slow.data
    assert cost(format="png", palette=True, effort=9).seconds > 3 * cost(format="png", palette=True).seconds
    assert cost(format="png", palette=True).seconds > 5 * cost(format="png").seconds


def test_where_a_palette_is_refused() -> None:
    assert refused(format="jpeg", palette=True) == "palette: jpeg has no palette; choose one of: png, gif"
    assert refused(format="png", palette=True, lossless=True) == (
        "palette: a lossless result keeps all of its colours; leave one of the two out"
    )
    assert refused(format="png", max_bytes=1000).endswith(", or png with palette")
    assert made(format="gif", palette=True).data == made(format="gif").data
    assert made(format="auto", palette=True).data == made().data


# JPEG XL


def test_jpeg_xl_is_written_where_libvips_can() -> None:
    if "jxl" not in pipeline.written_formats():
        choices = ", ".join(pipeline.written_formats())
        assert refused(format="jxl") == (
            f"format: jxl cannot be written by this server's libvips; choose one of: {choices}"
        )
        return
    data = made(format="jxl").data
    assert data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL "))
    assert len(data) < len(made(quality=90).data)
    assert refused(format="jxl", chroma="4:2:0").startswith("chroma: jxl cannot be 4:2:0")


def test_results_in_several_ways_at_once() -> None:
    outputs = [
        ResizeOptions(width=90, height=60),
        ResizeOptions(width=90, height=60, progressive=True),
        ResizeOptions(width=90, height=60, chroma="4:4:4"),  # type: ignore[arg-type]  # as JSON has it
        ResizeOptions(width=90, height=60, format=Format.PNG, palette=True),
    ]
    plain, progressive, full, palette = (
        Image.open(io.BytesIO(one.data)) for one in run(sample("jpeg"), *outputs).outputs
    )
    assert [bool(one.info.get("progressive")) for one in (plain, progressive)] == [False, True]
    assert (chroma_of(plain), chroma_of(full)) == ("4:4:4", "4:4:4")  # the quality is 90
    assert palette.mode == "P"
