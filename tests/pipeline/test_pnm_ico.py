"""Netpbm images and icons: every kind looks right, and broken ones are refused."""

import random
import struct
from array import array

import pytest
from PIL import Image

from tests.pipeline.run import LIMITS, info, refusal, resize, run
from tests.support.bitmaps import icon, icon_bitmap, netpbm
from tests.support.image_comparison import mean_abs_difference, open_exact
from tests.support.images import alpha_photo, encode, photo
from vipsrv import pipeline
from vipsrv.errors import Cancelled, CorruptImage, RequestError, TooLarge
from vipsrv.options import Format, ResizeOptions
from vipsrv.pipeline.formats import pnm
from vipsrv.worker_config import WorkerConfig

WIDTH, HEIGHT = 131, 90


def grey(maximum: int) -> list[int]:
    return [round(value * maximum / 255) for value in photo(WIDTH, HEIGHT).convert("L").tobytes()]


def colour(maximum: int) -> list[int]:
    return [round(value * maximum / 255) for value in photo(WIDTH, HEIGHT).tobytes()]


def dithered() -> Image.Image:
    return photo(WIDTH, HEIGHT).convert("1")


def looks_like(image: bytes, wanted: Image.Image, *, most: float) -> None:
    for width, height in ((WIDTH, HEIGHT), (64, 45)):
        result = resize(image, width, height, quality=100)
        reference = wanted.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        assert mean_abs_difference(result, reference) < most


@pytest.mark.parametrize("kind", [1, 4])
def test_bitmaps_of_one_bit(kind: int) -> None:
    ones = [1 - value // 255 for value in dithered().convert("L").tobytes()]
    looks_like(netpbm(kind, WIDTH, HEIGHT, ones), dithered(), most=6)


@pytest.mark.parametrize("maximum", [15, 100, 255, 256, 1000, 65_535])
@pytest.mark.parametrize("kind", [2, 3, 5, 6])
def test_grey_and_colour_of_any_depth(kind: int, maximum: int) -> None:
    scene = photo(WIDTH, HEIGHT)
    if kind in (2, 5):
        looks_like(netpbm(kind, WIDTH, HEIGHT, grey(maximum), maximum), scene.convert("L"), most=6)
    else:
        looks_like(netpbm(kind, WIDTH, HEIGHT, colour(maximum), maximum), scene, most=6)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pam_in_all_modes(mode: str) -> None:
    scene = alpha_photo(WIDTH, HEIGHT).convert(mode) if "A" in mode else photo(WIDTH, HEIGHT).convert(mode)
    head = f"P7\nWIDTH {WIDTH}\nHEIGHT {HEIGHT}\nDEPTH {len(mode)}\nMAXVAL 255\nTUPLTYPE ANY\n# one\nENDHDR\n"
    image = head.encode() + scene.tobytes()
    assert info(image).has_alpha == ("A" in mode)
    ground = Image.new("RGBA", scene.size, (255, 255, 255, 255))
    looks_like(image, Image.alpha_composite(ground, scene.convert("RGBA")), most=3)


@pytest.mark.parametrize("separator", [" ", "\n", "\t \r\n", "\n# a comment with 12 numbers 7\n", "#c\n"])
def test_separators_of_plain_numbers(separator: str) -> None:
    numbers = [0, 85, 170, 255]
    text = "P2#one\n2 # two\n2\n255\n" + separator.join(map(str, numbers))
    result = resize(text.encode(), 2, 2, quality=100).convert("L")
    assert all(abs(have - want) < 20 for have, want in zip(result.tobytes(), numbers, strict=True))


def test_plain_text_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"12 345#a comment # 9\n6\t78 # another\n\n9 1011 12"
    bits = b"101#01\n1 0 1# 1\n01"
    for size in range(1, len(text) + 1):
        monkeypatch.setattr(pnm, "PIECE", size)
        assert pnm.read_numbers(memoryview(text), 99) == array("H", [12, 345, 6, 78, 9, 1011, 12])
        assert pnm.read_bits(memoryview(bits), 99) == array("H", map(int, "10110101"))
        assert pnm.read_numbers(memoryview(text), 3) == array("H", [12, 345, 6])


@pytest.mark.parametrize(
    "text", [b"P2 1000 1000 255\n" + b"1 " * 1_000_000, b"P1 4 4\n" + b"#\n" * 1_000_000]
)
def test_reading_plain_text_checks_whether_to_stop(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(pnm, "PIECE", 100_000)
    asked: list[int] = []

    def watch() -> RequestError | None:
        asked.append(1)
        return Cancelled("enough") if len(asked) == 3 else None

    upload = pipeline.Upload.from_memory(text)
    with pytest.raises(Cancelled):
        pipeline.resize(upload, [ResizeOptions(width=9, height=9)], config=LIMITS, watch=watch)


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (b"P6\n", CorruptImage),
        (b"P6 2", CorruptImage),
        (b"P6 " + b" " * 60_000, CorruptImage),
        (b"P6 0 2 255\n" + bytes(12), CorruptImage),
        (b"P6 2 2 0\n" + bytes(12), CorruptImage),
        (b"P6 2 2 65536\n" + bytes(24), CorruptImage),
        (b"P6 2 -2 255\n" + bytes(12), CorruptImage),
        (b"P6 2 2 255\n" + bytes(11), CorruptImage),
        (b"P5 9999999999 9999999999 255\n" + bytes(11), TooLarge),
        (b"P5 99999999999 2 255\n" + bytes(11), CorruptImage),
        (b"P5 100000 90 255\n", CorruptImage),
        (b"P2 2 2 255\n1 2 3", CorruptImage),
        (b"P2 2 2 255\n1 2 3 x", CorruptImage),
        (b"P2 2 2 255\n1 2 3 -4", CorruptImage),
        (b"P2 2 2 255\n1 2 3 1_0", CorruptImage),
        (b"P2 2 2 255\n1 2 3 256", CorruptImage),
        (b"P2 2 2 65535\n1 2 3 65536", CorruptImage),
        (b"P2 2 2 255\n1 2 3 " + b"9" * 10_000, CorruptImage),
        (b"P1 2 2\n0120", CorruptImage),
        (b"P3 9000 9000 255\n1 2 3", TooLarge),
        (b"P7\nWIDTH 2\nHEIGHT 2\nENDHDR\n", CorruptImage),
        (b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 5\nMAXVAL 255\nENDHDR\n" + bytes(20), CorruptImage),
        (b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 3\nMAXVAL 255\n", CorruptImage),
    ],
)
def test_a_broken_pnm_is_refused(image: bytes, kind: type[RequestError]) -> None:
    assert type(refusal(image)) is kind


def clear_left() -> Image.Image:
    clear = Image.new("1", (40, 40), 0)
    clear.paste(1, (0, 0, 20, 40))
    return clear


@pytest.mark.parametrize("bits", [1, 4, 8, 24, 32])
def test_an_icon_with_a_bitmap_and_its_mask(bits: int) -> None:
    scene = photo(40, 40).convert("RGBA")
    scene.paste((0, 0, 0, 0), (0, 0, 20, 40))
    stored = scene if bits == 32 else photo(40, 40)
    stored = stored.quantize(1 << bits) if bits <= 8 else stored
    image = icon([(40, 40, bits, icon_bitmap(stored, bits, clear_left()))])
    told = info(image)
    assert (told.format, told.width, told.height, told.has_alpha) == ("ico", 40, 40, True)
    result = resize(image, 40, 40, quality=100, background="#00ffff")
    shown = stored.convert("RGB")
    shown.paste((0, 255, 255), (0, 0, 20, 40))
    assert mean_abs_difference(result, shown) < 6


def test_the_largest_image_of_an_icon_is_read() -> None:
    small = icon_bitmap(Image.new("RGB", (40, 40), (255, 0, 0)), 24, clear_left())
    image = icon([(40, 40, 24, small), (256, 256, 32, encode(alpha_photo(256, 256), "PNG"))])
    told = info(image)
    assert (told.width, told.height) == (256, 256)
    ground = Image.new("RGBA", (256, 256), (255, 255, 255, 255))
    wanted = Image.alpha_composite(ground, alpha_photo(256, 256)).convert("RGB")
    assert mean_abs_difference(resize(image, 256, 256, quality=100), wanted) < 3


def icon_pixel(image: bytes, at: tuple[int, int]) -> tuple[int, ...]:
    seen = info(image)
    options = ResizeOptions(width=seen.width, height=seen.height, format=Format.PNG)
    with open_exact(run(image, options).outputs[0].data) as result:
        pixel = result.convert("RGBA").getpixel(at)
    assert isinstance(pixel, tuple)
    return tuple(map(int, pixel))


def coloured(bits: int) -> Image.Image:
    image = Image.new("RGBA" if bits == 32 else "RGB", (40, 40), (200, 30, 60, 0)[: 4 if bits == 32 else 3])
    return image.quantize(1 << bits) if bits <= 8 else image


@pytest.mark.parametrize("bits", [1, 4, 8, 16, 24, 32])
def test_an_icon_without_a_mask_is_opaque(bits: int) -> None:
    if bits == 16:
        data = bytearray(icon_bitmap(coloured(24), 24, clear_left()))
        data[14:16] = struct.pack("<H", 16)
        data[40:] = struct.pack("<H", 25 << 10 | 4 << 5 | 7) * 1600
    else:
        data = bytearray(icon_bitmap(coloured(bits), bits, clear_left())[: -8 * 40])
    entry = (40, 40, bits, bytes(data))
    # As the only image, and before another one, whose bytes are not its mask.
    for image in (icon([entry]), icon([entry, (16, 16, 24, icon_bitmap(photo(16, 16), 24, clear_left()))])):
        red, _, _, alpha = icon_pixel(image, (5, 20))
        assert alpha == 255
        assert abs(red - 200) < 12


def test_alpha_of_an_icon_counts_only_if_there_is_any() -> None:
    plain = icon_bitmap(coloured(32), 32, clear_left())
    assert icon_pixel(icon([(40, 40, 32, plain)]), (5, 20))[3] == 0
    assert icon_pixel(icon([(40, 40, 32, plain)]), (25, 20)) == (200, 30, 60, 255)
    one = bytearray(plain)
    one[40 + 3] = 1  # in the lowest row
    assert icon_pixel(icon([(40, 40, 32, bytes(one))]), (25, 20))[3] == 0


@pytest.mark.parametrize("bits", [1, 4, 8, 24])
def test_an_icon_with_the_header_of_os2(bits: int) -> None:
    data = icon_bitmap(coloured(bits), bits, clear_left())
    colours = data[40 : len(data) - 8 * 40 - (40 * bits + 31) // 32 * 4 * 40]
    palette = b"".join(colours[at : at + 3] for at in range(0, len(colours), 4))
    core = struct.pack("<IHHHH", 12, 40, 80, 1, bits)
    # Its palette has as many colours as there are indices.
    head = core + palette.ljust(3 << bits if bits <= 8 else 0, b"\0")
    image = icon([(40, 40, bits, head + data[40 + len(colours) :])])
    assert icon_pixel(image, (5, 20))[3] == 0
    assert icon_pixel(image, (25, 20)) == (200, 30, 60, 255)


def test_a_directory_with_wrong_sizes() -> None:
    data = icon_bitmap(coloured(24), 24, clear_left())
    sound = icon([(40, 40, 24, data)])
    for at, value in ((6, b"\x10\x10"), (14, struct.pack("<I", 7)), (14, struct.pack("<I", 1 << 30))):
        image = bytearray(sound)
        image[at : at + len(value)] = value
        assert icon_pixel(bytes(image), (5, 20))[3] == 0
        assert icon_pixel(bytes(image), (25, 20)) == (200, 30, 60, 255)
    # The largest image is found by its own header, too.
    small = icon_bitmap(photo(16, 16), 24, clear_left().crop((0, 0, 16, 16)))
    assert info(icon([(48, 48, 24, small), (16, 16, 24, data)])).width == 40
    # The height of the image alone, without a mask; and a whole file of a bitmap.
    halved = data[:8] + struct.pack("<i", 40) + data[12 : -8 * 40]
    assert icon_pixel(icon([(40, 40, 24, halved)]), (5, 3)) == (200, 30, 60, 255)
    file = b"BM" + struct.pack("<IHHI", len(halved) + 14, 0, 0, 54) + halved
    assert icon_pixel(icon([(40, 40, 24, file)]), (5, 3)) == (200, 30, 60, 255)


def test_a_broken_icon_is_refused() -> None:
    image = icon([(64, 64, 32, encode(alpha_photo(64, 64), "PNG"))])
    sound = icon([(40, 40, 24, icon_bitmap(photo(40, 40), 24, clear_left()))])
    for broken in (image[:10], image[: len(image) // 2], sound[:10], sound[:30], sound[:-9]):
        assert isinstance(refusal(broken), CorruptImage)
    assert isinstance(refusal(b"\0\0\1\0\xff\0" + bytes(16 * 255)), CorruptImage)


def test_random_icons_give_an_image_or_a_refusal() -> None:
    dice = random.Random(1)
    sound = [
        icon([(40, 40, 24, icon_bitmap(photo(40, 40), 24, clear_left()))]),
        icon([(64, 64, 32, encode(alpha_photo(64, 64), "PNG"))]),
    ]
    for _ in range(300):
        image = bytearray(dice.choice(sound))
        for _ in range(dice.randrange(1, 4)):
            image[dice.randrange(4, 90)] = dice.choice([0, 1, 2, 4, 127, 128, 255, dice.randrange(256)])
        refusal(bytes(image), 20, 20)


def test_a_truncated_pnm_can_be_tolerated() -> None:
    limits = WorkerConfig(
        max_pixels=LIMITS.max_pixels, max_output_pixels=LIMITS.max_output_pixels, tolerate_truncated=True
    )
    options = ResizeOptions(width=60, height=40)
    for image in (netpbm(6, WIDTH, HEIGHT, colour(255)), netpbm(3, WIDTH, HEIGHT, colour(255))):
        upload = pipeline.Upload.from_memory(image[: len(image) // 2])
        assert pipeline.resize(upload, [options], config=limits).outputs[0].data
