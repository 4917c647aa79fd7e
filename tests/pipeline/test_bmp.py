"""Bitmaps of every kind look right, and any header gives an image or a refusal."""

import random
import struct
from functools import cache

import pytest
from PIL import Image

from tests.pipeline.run import LIMITS, info, refusal, resize, run
from tests.support.bitmaps import (
    A2RGB10,
    ARGB1555,
    ARGB4444,
    ARGB8888,
    CORE,
    INFO,
    RGB565,
    RGBA8888,
    V4,
    V5,
    bitmap,
)
from tests.support.image_comparison import mean_abs_difference, open_exact
from tests.support.images import alpha_photo, photo, swapped_profile
from vipsrv import pipeline
from vipsrv.errors import Cancelled, CorruptImage, RequestError, TooLarge, UnsupportedFormat
from vipsrv.options import Format, ResizeOptions
from vipsrv.pipeline.formats.bmp import rle
from vipsrv.worker_config import WorkerConfig

WIDTH, HEIGHT = 131, 90  # every row but that of 32 bits is padded


@cache
def scene(bits: int = 24, *, alpha: bool = False) -> Image.Image:
    if alpha:
        return alpha_photo(WIDTH, HEIGHT)
    rgb = photo(WIDTH, HEIGHT)
    return rgb.quantize(1 << bits) if bits <= 8 else rgb


def seen(image: Image.Image) -> Image.Image:
    """The image flattened onto white."""
    ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def looks_like(image: bytes, wanted: Image.Image, *, most: float) -> None:
    for width, height in ((WIDTH, HEIGHT), (64, 45)):
        result = resize(image, width, height, quality=100)
        reference = seen(wanted).resize((width, height), Image.Resampling.LANCZOS)
        assert mean_abs_difference(result, reference) < most


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("header", [CORE, 16, INFO, 52, 56, 64, V4, V5])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 24, 32])
def test_every_header_and_depth(bits: int, header: int, top_down: bool) -> None:  # noqa: FBT001
    if header == CORE and top_down:
        pytest.skip("a core header has no negative height")
    looks_like(bitmap(scene(bits), bits, header=header, top_down=top_down), scene(bits), most=6)


@pytest.mark.parametrize("header", [INFO, 52, V4, V5])
def test_masks_of_565(header: int) -> None:
    looks_like(bitmap(scene(), 16, header=header, masks=RGB565), scene(), most=4)


@pytest.mark.parametrize("header", [56, V4, V5])
@pytest.mark.parametrize(
    ("bits", "masks", "most"),
    [
        (16, ARGB4444, 6),
        (32, ARGB8888, 3),
        (32, RGBA8888, 3),
        (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000), 3),
        (32, (0x1F, 0x3E0, 0x1FFC00, 0xFF000000), 6),
    ],
)
def test_masks_with_alpha(header: int, bits: int, masks: tuple[int, ...], most: float) -> None:
    image = bitmap(scene(alpha=True), bits, header=header, masks=masks)
    assert info(image).has_alpha
    looks_like(image, scene(alpha=True), most=most)


@pytest.mark.parametrize(("bits", "masks"), [(16, ARGB1555), (32, A2RGB10)])
def test_masks_with_little_alpha(bits: int, masks: tuple[int, ...]) -> None:
    opaque = scene().convert("RGBA")
    opaque.paste((0, 0, 0, 0), (0, 0, 40, HEIGHT))
    looks_like(bitmap(opaque, bits, header=V4, masks=masks), opaque, most=4)


def test_the_fourth_byte_without_a_mask_is_not_alpha() -> None:
    image = bitmap(scene(), 32)
    assert not info(image).has_alpha
    looks_like(image, scene(), most=3)


@pytest.mark.parametrize(("bits", "compression"), [(8, 1), (4, 2)])
def test_run_lengths(bits: int, compression: int) -> None:
    plain = scene(bits)
    looks_like(bitmap(plain, bits, compression=compression), plain, most=6)
    flat = Image.new("P", (700, 3), 5)
    flat.putpalette(scene(8).getpalette() or [])
    result = resize(bitmap(flat, bits, compression=compression), 700, 3, quality=100)
    assert mean_abs_difference(result, flat.convert("RGB")) < 2


def rle8(width: int, height: int, data: bytes) -> bytes:
    image = Image.new("P", (width, height))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    whole = bitmap(image, 8, compression=1)
    return whole[: int.from_bytes(whole[10:14], "little")] + data


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (b"\4\1\0\0\4\2\0\1", ["2222", "1111"]),
        (b"\4\1\0\0\4\2", ["2222", "1111"]),  # without the end of the image
        (b"\xff\1\0\0\xff\2\0\1", ["2222", "1111"]),  # runs beyond the edge
        (b"\0\2\2\1\2\3\0\1", ["0033", "0000"]),  # a move
        (b"\0\2\xff\xff\1\1\0\1", ["0000", "0000"]),  # a move out of the image
        (b"\0\3\1\2\3\0\0\0\0\4\3\2\1\1\0\1", ["3211", "1230"]),  # uncompressed pixels
        (b"\0\1", ["0000", "0000"]),
    ],
)
def test_run_length_escapes(data: bytes, rows: list[str]) -> None:
    decoded = rle.decode(memoryview(data), 4, 2, half=False, tolerant=False)
    # The lowest row comes first.
    assert [decoded[4:], decoded[:4]] == [bytes(map(int, row)) for row in rows]


def test_run_length_data_longer_than_the_pixels_can_take_are_ignored() -> None:
    still = b"\0\2\0\0"
    sound = b"\1\1\1\2\1\3\1\1\0\0" * 2 + b"\0\1"
    assert refusal(rle8(4, 2, still * 2 + sound)) is None
    assert isinstance(refusal(rle8(4, 2, still * 20 + sound)), CorruptImage)


def test_decoding_runs_checks_whether_to_stop() -> None:
    upload = pipeline.Upload.from_memory(rle8(400, 400, b"\1\1" * 400 * 399))
    asked: list[int] = []

    def watch() -> RequestError | None:
        asked.append(1)
        return Cancelled("enough") if len(asked) == 3 else None

    with pytest.raises(Cancelled):
        pipeline.resize(upload, [ResizeOptions(width=9, height=9)], config=LIMITS, watch=watch)


@pytest.mark.parametrize("data", [b"", b"\4", b"\4\1", b"\4\1\0\0\2\2", b"\0\2\1", b"\4\1\0\0\0\3\1"])
def test_runs_that_end_early_are_refused_or_tolerated(data: bytes) -> None:
    with pytest.raises(CorruptImage):
        rle.decode(memoryview(data), 4, 2, half=False, tolerant=False)
    assert len(rle.decode(memoryview(data), 4, 2, half=False, tolerant=True)) == 8
    assert isinstance(refusal(rle8(4, 2, data)), CorruptImage)


def test_too_many_run_length_pixels_are_refused_before_decoding() -> None:
    head = bytearray(rle8(4, 2, b"\0\1"))
    head[18:26] = struct.pack("<ii", 9000, 9000)
    assert info(bytes(head)).width == 9000
    with pytest.raises(TooLarge, match="33554432 are allowed"):
        resize(bytes(head), 10, 10)


@pytest.mark.parametrize("colours", [1, 3, 200])
def test_a_palette_shorter_than_the_depth_allows(colours: int) -> None:
    plain = photo(WIDTH, HEIGHT).quantize(colours)
    looks_like(bitmap(plain, 8, colours=colours), plain, most=4)


def test_a_palette_shorter_than_declared() -> None:
    plain = photo(WIDTH, HEIGHT).quantize(100)
    image = bytearray(bitmap(plain, 8, colours=100))
    image[46:50] = struct.pack("<I", 2**31)
    looks_like(bytes(image), plain, most=4)


def test_indices_without_a_colour_become_black() -> None:
    plain = Image.new("P", (8, 8), 9)
    plain.putpalette([255, 255, 255] * 4)
    assert max(high for _, high in resize(bitmap(plain, 8, colours=4), 8, 8).getextrema()) < 3  # type: ignore[misc]


def test_a_gap_before_the_pixels_and_an_odd_offset() -> None:
    for bits in (8, 16, 24, 32):
        looks_like(bitmap(scene(bits), bits, gap=333), scene(bits), most=6)


def test_an_embedded_profile_is_honoured() -> None:
    green = Image.new("RGB", (40, 40), (0, 200, 0))
    pixel = resize(bitmap(green, 24, header=V5, profile=swapped_profile()), 20, 20).getpixel((9, 9))
    assert isinstance(pixel, tuple)
    assert pixel[2] > 150
    assert max(pixel[:2]) < 60


def test_the_padding_of_the_last_row_may_be_missing() -> None:
    assert (3 * WIDTH) % 4 != 0
    padding = -(3 * WIDTH) % 4
    image = bitmap(scene(), 24)
    looks_like(image[:-padding], scene(), most=3)
    assert isinstance(refusal(image[: -padding - 1]), CorruptImage)


def changed(field: int, form: str, *values: int) -> bytes:
    image = bytearray(bitmap(scene(8), 8))
    image[field : field + struct.calcsize(form)] = struct.pack(form, *values)
    return bytes(image)


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (changed(10, "<I", 2**32 - 1), CorruptImage),  # the pixels' offset
        (changed(10, "<I", 20), CorruptImage),
        (changed(14, "<I", 11), CorruptImage),  # the header's size
        (changed(14, "<I", 2**32 - 1), CorruptImage),
        (changed(18, "<i", 0), CorruptImage),  # width
        (changed(18, "<i", -5), CorruptImage),
        (changed(18, "<i", 100_000), CorruptImage),
        (changed(18, "<i", 2**31 - 1), TooLarge),
        (changed(22, "<i", 0), CorruptImage),  # height
        (changed(22, "<i", -(2**31)), TooLarge),
        (changed(18, "<ii", 46_341, 46_341), TooLarge),  # 2**31 pixels
        (changed(28, "<H", 0), CorruptImage),  # bits
        (changed(28, "<H", 7), CorruptImage),
        (changed(28, "<H", 65_535), CorruptImage),
        (changed(30, "<I", 9), CorruptImage),  # compression
        (changed(30, "<I", 3), CorruptImage),
        (changed(30, "<I", 4), UnsupportedFormat),
        (changed(30, "<I", 5), UnsupportedFormat),
        (b"BM", CorruptImage),
        (b"BM" + bytes(100), CorruptImage),
        (changed(0, "<2s", b"BM")[:40], CorruptImage),  # type: ignore[arg-type]
    ],
)
def test_impossible_fields_are_refused(image: bytes, kind: type[RequestError]) -> None:
    refused = refusal(image)
    assert type(refused) is kind
    assert "bmp" in refused.message or "max-pixels" in refused.message


@pytest.mark.parametrize(
    "masks", [(0, 0, 0, 0), (0xF00F, 0xF0, 0, 0), (0xFF, 0xFF, 0xFF00, 0), (0x1F0000, 0x3E0, 0x1F, 0)]
)
def test_impossible_masks_are_refused(masks: tuple[int, ...]) -> None:
    image = bytearray(bitmap(scene(), 16, header=V4, masks=RGB565))
    image[54:70] = struct.pack("<4I", *masks)
    refused = refusal(bytes(image))
    assert isinstance(refused, CorruptImage)
    assert "mask" in refused.message


def test_random_headers_give_an_image_or_a_refusal() -> None:
    dice = random.Random(1)
    images = [
        bitmap(scene(8), 8),
        bitmap(scene(4), 4, compression=2),
        bitmap(scene(), 24, header=CORE),
        bitmap(scene(alpha=True), 32, header=V5, masks=ARGB8888),
    ]
    for _ in range(600):
        image = bytearray(dice.choice(images))
        for _ in range(dice.randrange(1, 4)):
            image[dice.randrange(2, 160)] = dice.choice([0, 1, 2, 4, 127, 128, 255, dice.randrange(256)])
        refusal(bytes(image[: dice.choice([len(image), dice.randrange(2, len(image))])]), 20, 20)


@pytest.mark.parametrize(("bits", "masks"), [(24, None), (32, None), (32, ARGB8888)])
def test_several_results_and_formats_of_one_bitmap(bits: int, masks: tuple[int, ...] | None) -> None:
    plain = scene(alpha=masks is not None)
    image = bitmap(plain, bits, header=V4, masks=masks)
    sizes = [(100, 70), (40, 30)]
    asked = [ResizeOptions(width=width, height=height, format=Format.PNG) for width, height in sizes]
    for size, output in zip(sizes, run(image, *asked).outputs, strict=True):
        result = open_exact(output.data)
        assert (result.size, result.mode) == (size, "RGBA" if masks else "RGB")
        wanted = seen(plain).resize(size, Image.Resampling.LANCZOS)
        assert mean_abs_difference(seen(result), wanted) < 3


def test_a_truncated_bitmap_can_be_tolerated() -> None:
    limits = WorkerConfig(
        max_pixels=LIMITS.max_pixels,
        max_output_pixels=LIMITS.max_output_pixels,
        tolerate_truncated=True,
        quality=95,
    )
    options = ResizeOptions(width=WIDTH, height=HEIGHT)
    half = bitmap(scene(), 24, top_down=True)
    upload = pipeline.Upload.from_memory(half[: len(half) // 2])
    result = open_exact(pipeline.resize(upload, [options], config=limits).outputs[0].data)
    there = (0, 0, WIDTH, HEIGHT // 2 - 8)
    assert mean_abs_difference(result.crop(there), scene().crop(there)) < 4
    missing = result.crop((0, HEIGHT // 2 + 8, WIDTH, HEIGHT))
    assert mean_abs_difference(missing, Image.new("RGB", missing.size)) < 2
