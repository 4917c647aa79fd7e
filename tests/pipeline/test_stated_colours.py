"""Colours that a file states by numbers: what is stored by a standard's formulas comes back as it was.

The formulas here go from sRGB to the stored codes, the other way round than the pipeline's, and have their
constants from the standards: ITU-T H.273, BT.2100-2 (PQ, HLG), BT.2087-0 (BT.709 to BT.2020), SMPTE EG 432-1
(Display P3).
"""

import io
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Final

import pytest
import pyvips
from PIL import Image

from tests.pipeline.run import info, run
from tests.support.bombs import png_chunk
from tests.support.image_comparison import open_exact
from tests.support.images import adobe_rgb_profile
from vipsrv.options import Fit, Format, Keep, Position, ResizeOptions
from vipsrv.pipeline.formats.png.chunks import read_notes
from vipsrv.pipeline.notes import NOTHING
from vipsrv.pipeline.upload import Upload

Colour = tuple[int, ...]

PATCHES: Final[list[Colour]] = [
    (220, 30, 30),
    (30, 200, 60),
    (20, 60, 200),
    (200, 180, 40),
    (128, 128, 128),
    (0, 0, 0),
    (32, 150, 160),
    (90, 40, 120),
]
SIDE: Final = 16
GREYS: Final[list[Colour]] = [(0,), (30,), (100,), (128,), (170,), (200,), (220,), (64,)]

_TO_BT2020: Final = (
    (0.6274, 0.3293, 0.0433),
    (0.0691, 0.9195, 0.0114),
    (0.0164, 0.0880, 0.8956),
)
_TO_P3: Final = (
    (0.8225, 0.1774, 0.0),
    (0.0332, 0.9669, 0.0),
    (0.0171, 0.0724, 0.9108),
)
_SAME: Final = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
# By the chromaticities of BT.601 with 525 lines (SMPTE 170M): its matrix is the inverse of the known one
# to BT.709 (0.9395, 0.0502, 0.0103; 0.0178, 0.9658, 0.0164; -0.0016, -0.0044, 1.0060).
_TO_BT601: Final = (
    (1.0654, -0.0554, -0.0100),
    (-0.0196, 1.0364, -0.0168),
    (0.0016, 0.0044, 0.9940),
)
_MATRICES: Final = {1: _SAME, 6: _TO_BT601, 9: _TO_BT2020, 12: _TO_P3}
_BT2020_LUMA: Final = (0.2627, 0.6780, 0.0593)


def _linear(code: float) -> float:
    return code / 12.92 if code <= 0.04045 else ((code + 0.055) / 1.055) ** 2.4


def _pq(light: float) -> float:
    """The code of so many times 203 cd/m²."""
    y = (max(light, 0) * 203 / 10000) ** 0.1593017578125
    return float(((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375)


def _hlg(scene: float) -> float:
    scene = max(scene, 0)
    if scene <= 1 / 12:
        return math.sqrt(3 * scene)
    return 0.17883277 * math.log(12 * scene - 0.28466892) + 0.55991073


def _srgb_code(light: float) -> float:
    light = min(max(light, 0.0), 1.0)
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


def _power(exponent: float) -> Callable[[float], float]:
    return lambda light: max(light, 0.0) ** (1 / exponent)


_CURVES: Final = {13: _srgb_code, 1: _srgb_code, 8: _power(1), 4: _power(2.2), 5: _power(2.8), 16: _pq}


def stored(colour: Sequence[float], primaries: int, transfer: int) -> list[float]:
    """The codes, from 0 to 1, of an sRGB colour (0 to 255) in these numbers of CICP."""
    return stored_light([_linear(code / 255) for code in colour], primaries, transfer)


def stored_light(light: Sequence[float], primaries: int, transfer: int) -> list[float]:
    """The same of linear light, of which 1 is white."""
    if len(light) == 1:
        own = [*light] * 3
    else:
        own = [sum(row[band] * light[band] for band in range(3)) for row in _MATRICES[primaries]]
    if transfer == 18:
        shown = [max(one, 0) * 203 / 1000 for one in own]
        luminance = sum(share * one for share, one in zip(_BT2020_LUMA, shown, strict=True))
        gain = luminance ** ((1 - 1.2) / 1.2) if luminance else 0
        codes = [_hlg(one * gain) for one in shown]
    else:
        codes = [_CURVES[transfer](one) for one in own]
    return codes[: len(light)]


def patches(colours: Sequence[Sequence[float]], bits: int, alpha: float | None = None) -> pyvips.Image:
    """Squares of these codes (0 to 1) side by side."""
    most = (1 << bits) - 1
    squares = []
    for codes in colours:
        values = [min(round(code * most), most) for code in codes] + ([] if alpha is None else [alpha * most])
        squares.append(pyvips.Image.black(SIDE, SIDE, bands=len(values)) + values)
    image = pyvips.Image.arrayjoin(squares, across=len(squares)).cast("uchar" if bits == 8 else "ushort")
    is_grey = len(colours[0]) == 1
    kind = {(8, True): "b-w", (8, False): "srgb", (16, True): "grey16", (16, False): "rgb16"}[bits, is_grey]
    return image.copy(interpretation=kind)


def png_of(image: pyvips.Image, *chunks: bytes) -> bytes:
    """A PNG with these chunks behind its header."""
    data: bytes = image.pngsave_buffer(keep="none")
    return data[:33] + b"".join(chunks) + data[33:]


def cicp(primaries: int, transfer: int, *, matrix: int = 0, full: int = 1) -> bytes:
    return png_chunk(b"cICP", bytes([primaries, transfer, matrix, full]))


def gama(gamma: float) -> bytes:
    return png_chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))


def chrm(*numbers: float) -> bytes:
    """White, red, green and blue."""
    return png_chunk(b"cHRM", struct.pack(">8I", *(round(number * 100_000) for number in numbers)))


P3 = chrm(0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
SRGB = chrm(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
ICCP = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(adobe_rgb_profile()))


def avif_of(image: pyvips.Image, primaries: int, transfer: int, *, bits: int = 8) -> bytes:
    """A lossless AVIF with these numbers in its ``colr`` box. libheif takes the upper bits of 16."""
    data: bytes = image.heifsave_buffer(compression="av1", lossless=True, bitdepth=bits, keep="none")
    place = data.index(b"colrnclx") + 8
    return data[:place] + struct.pack(">HH", primaries, transfer) + data[place + 4 :]


def result(data: bytes, width: int | None = None, height: int = SIDE, **options: object) -> Image.Image:
    options = {"format": "png", **options}
    wide = len(PATCHES) * SIDE if width is None else width
    (output,) = run(data, ResizeOptions(width=wide, height=height, **options)).outputs  # type: ignore[arg-type]
    return open_exact(output.data)


def centres(image: Image.Image, mode: str = "RGB") -> list[Colour]:
    """The colour in the middle of each of the eight squares."""
    image = image.convert(mode)
    width, height = image.size
    found = []
    for number in range(8):
        pixel = image.getpixel((round((number + 0.5) * width / 8), height // 2))
        found.append(pixel if isinstance(pixel, tuple) else (int(pixel or 0),))
    return found


def assert_near(found: Sequence[Colour], wanted: Sequence[Sequence[float]], within: float) -> None:
    far = [
        (one, other)
        for one, other in zip(found, wanted, strict=True)
        if any(abs(a - b) > within for a, b in zip(one, other, strict=True))
    ]
    assert far == []


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("primaries", "transfer"),
    [(1, 8), (1, 4), (1, 5), (1, 16), (6, 13), (6, 16), (9, 18), (9, 16), (9, 1), (12, 13), (12, 8), (12, 4)],
)
def test_png_with_cicp(primaries: int, transfer: int, bits: int) -> None:
    colours = PATCHES
    if primaries == 6:  # cannot show all of sRGB
        colours = [tuple((band + 128) // 2 for band in colour) for colour in PATCHES]
    image = patches([stored(colour, primaries, transfer) for colour in colours], bits)
    found = centres(result(png_of(image, cicp(primaries, transfer))))
    # Of linear light and of HDR eight bits have few codes for dark colours.
    assert_near(found, colours, 3 if bits == 16 else 25 if transfer in {8, 16, 18} else 6)


@pytest.mark.parametrize("transfer", [8, 4, 16, 18])
@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_grey_png_with_cicp(bits: int, has_alpha: bool, transfer: int) -> None:  # noqa: FBT001
    codes = [stored(grey, 9, transfer) for grey in GREYS]
    image = patches(codes, bits, 0.5 if has_alpha else None)
    found = centres(result(png_of(image, cicp(9, transfer))), "LA" if has_alpha else "L")
    wanted = [(*grey, 128) if has_alpha else grey for grey in GREYS]
    assert_near(found, wanted, 14 if bits == 8 and transfer != 4 else 3)


@pytest.mark.parametrize(("bits", "transfer"), [(8, 13), (16, 16), (10, 16), (12, 18), (10, 13), (12, 8)])
def test_avif_with_nclx(bits: int, transfer: int) -> None:
    image = patches([stored(colour, 9, transfer) for colour in PATCHES], 8 if bits == 8 else 16)
    data = avif_of(image, 9, transfer, bits=min(bits, 12))
    assert_near(centres(result(data)), PATCHES, 6)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_monochrome_avif(bits: int, has_alpha: bool) -> None:  # noqa: FBT001
    image = patches(
        [stored(grey, 1, 8) for grey in GREYS], 8 if bits == 8 else 16, 0.5 if has_alpha else None
    )
    found = centres(result(avif_of(image, 1, 8, bits=bits)), "LA" if has_alpha else "L")
    assert_near(found, [(*grey, 128) if has_alpha else grey for grey in GREYS], 12 if bits == 8 else 3)


def test_avif_whose_numbers_are_those_of_srgb_is_not_touched() -> None:
    image = patches([stored(colour, 1, 13) for colour in PATCHES], 8)
    for primaries, transfer in [(1, 13), (2, 2), (1, 1), (2, 13), (200, 13), (1, 200)]:
        assert_near(centres(result(avif_of(image, primaries, transfer))), PATCHES, 1)


def test_avif_whose_stream_alone_states_the_colours() -> None:
    image = patches([stored(colour, 12, 13) for colour in PATCHES], 8)
    data = image.heifsave_buffer(compression="av1", Q=95, subsample_mode="off", keep="none")
    assert b"colr" not in data
    bits = f"{int.from_bytes(data):b}".zfill(8 * len(data))
    # color_description_present_flag, primaries, transfer, matrix; only once in so few bytes.
    place = bits.index(f"1{1:08b}{13:08b}{6:08b}")
    bits = bits[: place + 1] + "00001100" + bits[place + 9 :]
    data = int(bits, 2).to_bytes(len(data))
    assert_near(centres(result(data)), PATCHES, 6)


@pytest.mark.parametrize(("transfer", "kind"), [(16, "png"), (18, "png"), (16, "avif"), (18, "avif")])
def test_highlights_of_hdr_roll_off(transfer: int, kind: str) -> None:
    nits = [100, 150, 203, 300, 400, 600, 1000, 1000 if transfer == 18 else 4000]
    image = patches([stored_light([one / 203] * 3, 9, transfer) for one in nits], 16)
    data = png_of(image, cicp(9, transfer)) if kind == "png" else avif_of(image, 9, transfer, bits=12)
    greys = [colour[0] for colour in centres(result(data))]
    assert greys == sorted(greys)
    assert greys[:2] == pytest.approx([255 * _srgb_code(one / 203) for one in nits[:2]], abs=2)
    assert 238 <= greys[2] < greys[3] < greys[4] < greys[5] < 255, "white, and what is brighter"
    assert greys[6:] == [255, 255]


def test_bright_colours_keep_their_hue() -> None:
    image = patches([stored_light([4, 1, 1], 9, 16)] * 8, 16)
    red, green, blue = centres(result(png_of(image, cicp(9, 16))))[0]
    assert red > 245
    assert green == pytest.approx(255 * _srgb_code(0.25), abs=8)
    assert abs(green - blue) < 4


@pytest.mark.parametrize("bits", [8, 16])
def test_narrow_range(bits: int) -> None:
    codes = [[(16 + 219 * code) / 255 for code in stored(colour, 12, 13)] for colour in PATCHES]
    if bits == 16:
        codes = [[code * 255 * 256 / 65535 for code in one] for one in codes]
    assert_near(centres(result(png_of(patches(codes, bits), cicp(12, 13, full=0)))), PATCHES, 3)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("gamma", [1.0, 1 / 1.8, 0.35, 0.7, 2.5])
def test_png_with_gamma(gamma: float, bits: int) -> None:
    colours = [tuple(max(band, 90) for band in colour) for colour in PATCHES]
    codes = [[_linear(code / 255) ** gamma for code in colour] for colour in colours]
    for chunks in ([gama(gamma)], [gama(gamma), SRGB]):
        found = centres(result(png_of(patches(codes, bits), *chunks)))
        assert_near(found, colours, 3 if bits == 16 else 12 if gamma > 1 else 4)


def test_gamma_of_a_palette() -> None:
    codes = [[_linear(code / 255) for code in colour] for colour in PATCHES]
    data = png_of(patches(codes, 8))
    image = Image.open(io.BytesIO(data)).convert("P", palette=Image.Palette.ADAPTIVE)
    written = io.BytesIO()
    image.save(written, "PNG")
    data = written.getvalue()
    assert_near(centres(result(data[:33] + gama(1) + data[33:])), PATCHES, 14)


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [gama(1 / 2.2)],
        [gama(1 / 2.2), SRGB],
        [SRGB],
        [gama(0.45)],
        [gama(0)],
        [gama(30_000)],
        [gama(0.001)],
        [chrm(0, 0, 0, 0, 0, 0, 0, 0)],
        [chrm(0.3127, 0.329, 0.64, 0.33, 0.64, 0.33, 0.15, 0.06)],
        [chrm(0.3127, 0, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)],
        [chrm(0.9, 0.05, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)],
        [chrm(*[40_000] * 8)],
        [png_chunk(b"sRGB", b"\0"), gama(1)],
        [cicp(1, 13), gama(1)],
        [cicp(2, 2)],
        [cicp(12, 13, matrix=1)],
        [cicp(12, 13, full=7)],
        [cicp(0, 13)],
        [cicp(12, 0)],
        [cicp(255, 255)],
        [png_chunk(b"cICP", b"\x0c\x0d\0")],
        [png_chunk(b"gAMA", bytes(2))],
    ],
)
@pytest.mark.parametrize("bits", [8, 16])
def test_png_without_colours_or_with_nonsense_is_not_touched(chunks: list[bytes], bits: int) -> None:
    image = patches([[code / 255 for code in colour] for colour in PATCHES], bits)
    assert_near(centres(result(png_of(image, *chunks))), PATCHES, 1)


def test_a_chunk_with_a_wrong_checksum_does_not_count() -> None:
    image = patches([[code / 255 for code in colour] for colour in PATCHES], 8)
    for chunk in (cicp(12, 13), gama(1), P3):
        assert read_notes(Upload.from_memory(png_of(image, chunk))) is not NOTHING
        damaged = chunk[:-1] + bytes([chunk[-1] ^ 1])
        assert read_notes(Upload.from_memory(png_of(image, damaged))) is NOTHING


def test_which_chunk_counts() -> None:
    image = patches([[code / 255 for code in colour] for colour in PATCHES], 8)
    by_profile = centres(result(png_of(image, ICCP)))
    by_cicp = centres(result(png_of(image, cicp(12, 13))))
    assert by_profile != by_cicp
    assert centres(result(png_of(image, ICCP, gama(1), P3))) == by_profile
    assert centres(result(png_of(image, cicp(12, 13), ICCP, gama(1)))) == by_cicp
    assert_near(centres(result(png_of(image, cicp(1, 13), ICCP))), PATCHES, 1)
    # cHRM counts without gAMA; the curve is then that of sRGB.
    assert_near(centres(result(png_of(image, P3))), by_cicp, 1)
    assert_near(centres(result(png_of(image, cicp(255, 13), P3))), by_cicp, 1)
    assert_near(centres(result(png_of(image, png_chunk(b"sRGB", b"\0"), P3))), PATCHES, 1)


@pytest.mark.parametrize("keep", list(Keep))
def test_a_result_is_srgb_whatever_it_keeps(keep: Keep) -> None:
    image = patches([stored(colour, 12, 13) for colour in PATCHES], 8)
    for data in (png_of(image, cicp(12, 13), ICCP), avif_of(image, 12, 13)):
        for kind in ("png", "webp", "jpeg"):
            shown = result(data, format=kind, keep=keep, quality=95)
            assert "icc_profile" not in shown.info
            assert_near(centres(shown), PATCHES, 12 if kind != "png" else 3)


def test_transparency() -> None:
    image = patches([stored(colour, 9, 16) for colour in PATCHES], 16, 0.5)
    for data in (png_of(image, cicp(9, 16)), avif_of(image, 9, 16, bits=12)):
        assert_near(centres(result(data), "RGBA"), [(*colour, 128) for colour in PATCHES], 4)
        for background, ground in [("#ffffff", (255, 255, 255)), ("#204080", (32, 64, 128))]:
            shown = result(data, format="tiff", background=background)
            mixed = [[(a + b) / 2 for a, b in zip(one, ground, strict=True)] for one in PATCHES]
            found = centres(result(data, format="jpeg", quality=100, background=background))
            assert_near(found, mixed, 5)
            assert shown.size == (8 * SIDE, SIDE)


def test_transparent_grey_on_a_colour() -> None:
    image = patches([stored(grey, 9, 16) for grey in GREYS], 16, 0.5)
    found = centres(result(png_of(image, cicp(9, 16)), format="jpeg", quality=100, background="#c04020"))
    assert_near(found, [[(grey[0] + ground) / 2 for ground in (192, 64, 32)] for grey in GREYS], 5)


@pytest.mark.parametrize(("width", "height"), [(64, 8), (300, 40), (128, 40), (40, 16)])
def test_sizes(width: int, height: int) -> None:
    image = patches([stored(colour, 9, 16) for colour in PATCHES], 16)
    for alpha in (image, image.bandjoin(65535).copy(interpretation="rgb16")):
        shown = result(png_of(alpha, cicp(9, 16)), width, height)
        assert shown.size == (width, height)
        if width > 60:
            assert_near(centres(shown), PATCHES, 4)


def test_several_results_and_positions() -> None:
    image = patches([stored(colour, 12, 13) for colour in PATCHES], 8)
    outputs = [
        ResizeOptions(width=128, height=16, format=Format.PNG),
        ResizeOptions(width=64, height=8, format=Format.PNG, keep=Keep.ICC),
        ResizeOptions(width=16, height=16, fit=Fit.COVER, position=Position.ENTROPY),
    ]
    for data in (png_of(image, cicp(12, 13)), avif_of(image, 12, 13)):
        first, second, third = run(data, *outputs).outputs
        assert_near(centres(open_exact(first.data)), PATCHES, 3)
        assert_near(centres(open_exact(second.data)), PATCHES, 3)
        assert open_exact(third.data).size == (16, 16)


def test_icon_that_holds_a_png_with_gamma() -> None:
    codes = [[_linear(code / 255) for code in colour] for colour in PATCHES]
    data = png_of(patches(codes, 8), gama(1))
    icon = struct.pack("<3H4B2H2I", 0, 1, 1, 128, 16, 0, 0, 1, 32, len(data), 22) + data
    assert_near(centres(result(icon)), PATCHES, 14)


def _exif(orientation: int) -> bytes:
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_behind_the_pixels_of_a_png(orientation: int) -> None:
    image = patches([[code / 255 for code in colour] for colour in PATCHES], 8)
    before = png_of(image, png_chunk(b"eXIf", _exif(orientation)))
    plain = png_of(image)
    behind = plain[:-12] + png_chunk(b"eXIf", _exif(orientation)) + plain[-12:]
    assert info(behind).orientation == info(before).orientation == orientation
    assert info(behind).upright_size == ((16, 128) if orientation > 4 else (128, 16))
    for kind, keep in [("png", Keep.NONE), ("jpeg", Keep.EXIF), ("png", Keep.ALL)]:
        one, other = (result(data, 64, 64, format=kind, keep=keep) for data in (behind, before))
        assert one.tobytes() == other.tobytes()
        assert dict(one.getexif()) == dict(other.getexif())


def test_exif_behind_the_pixels_that_is_damaged_is_ignored() -> None:
    plain = png_of(patches([[code / 255 for code in colour] for colour in PATCHES], 8))
    chunk = png_chunk(b"eXIf", _exif(6))
    for bad in (
        png_chunk(b"eXIf", b""),
        png_chunk(b"eXIf", b"MM\0*"),
        png_chunk(b"eXIf", b"MM\0*" + bytes([255] * 40)),
        png_chunk(b"eXIf", _exif(9)),
        png_chunk(b"eXIf", _exif(6).replace(b"\0\3", b"\0\4", 1)),
        chunk[:4] + b"eXIg" + chunk[8:],
    ):
        assert info(plain[:-12] + bad + plain[-12:]).orientation == 1
    assert info(plain[:-12] + b"\xff\xff\xff\xffeXIf").orientation == 1
