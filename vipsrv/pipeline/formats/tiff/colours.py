"""Make an image that libvips understands of the samples of an unusual page: grey, sRGB or CMYK; alpha last.

Whole numbers up to 16 bits have a known range. Floats, signed and longer numbers mean what ``ranges`` finds
out, which may need all pixels; so that happens when the image is decoded.
"""

import numpy as np
import pyvips

from vipsrv.errors import UnsupportedFormat
from vipsrv.pipeline.formats.base import OpenedPage
from vipsrv.pipeline.formats.tiff.directory import Tag
from vipsrv.pipeline.formats.tiff.old_jpeg import open_old_jpeg
from vipsrv.pipeline.formats.tiff.page import Compression, Numbers, Page, Photometric, is_usual
from vipsrv.pipeline.formats.tiff.ranges import Range, find_range, is_really_unsigned, no_data, stated_range
from vipsrv.pipeline.formats.tiff.rearrange import open_rearranged, shorts
from vipsrv.pipeline.formats.tiff.samples import read_samples
from vipsrv.pipeline.vips.fields import PROFILE

BYTE, WORD = 255, 65_535
_WORD_BITS = 16
_READ_STEP = 1024  # bytes

_RED_GREEN_BLUE = (0.299, 0.587, 0.114)
"""The share of each colour in Y of YCbCr, where the file does not say: TIFF 6.0, section 21."""


def open_unusual(page: Page, fail_on: str) -> OpenedPage:
    """Open a page. Raises ``pyvips.Error`` and ``UnsupportedFormat``."""
    if page.compression == Compression.OLD_JPEG:
        return open_old_jpeg(page, fail_on)
    if _is_subsampled(page):
        return OpenedPage(image=_by_libtiff(page, fail_on), has_alpha=False)
    if is_usual(page, but_sound=True):
        return open_as_libvips(page, fail_on)
    samples = read_samples(page, fail_on)
    has_alpha = page.alpha is not None
    if page.compression == Compression.JPEG and page.photometric == Photometric.YCBCR and not page.is_planar:
        return OpenedPage(image=samples.extract_band(0, n=3).copy(interpretation="srgb"), has_alpha=False)
    if page.is_lab:
        image = _lab(samples, page)
    elif page.photometric == Photometric.PALETTE:
        image = _palette(samples, page)
    elif page.numbers_are == Numbers.UNSIGNED and page.bits <= _WORD_BITS:
        colours, alpha = _wanted(samples, page)
        wanted = colours if alpha is None else colours.bandjoin(alpha)
        image = _coloured(_unsigned(wanted, page.bits), page)
    else:
        return _of_unknown_range(samples, page, fail_on)
    return OpenedPage(image=image, has_alpha=has_alpha)


def _of_unknown_range(samples: pyvips.Image, page: Page, fail_on: str) -> OpenedPage:
    """Open a page whose numbers are looked at when it is decoded."""

    def whole() -> pyvips.Image:
        return _wanted(read_samples(page, fail_on), page)[0]

    def finish(part: pyvips.Image) -> pyvips.Image:
        # ``part`` may be some of the page, whose range is that of all.
        colours, alpha = _wanted(part, page)
        if part.format == "char" and is_really_unsigned(whole()):
            both = colours if alpha is None else colours.bandjoin(alpha)
            return _coloured(both.copy(format="uchar"), page)
        found = stated_range(page) or find_range(whole(), page)
        return _coloured(_scaled(colours, alpha, page, found), page, is_light=found.is_light)

    name = {1: "grey16", 3: "rgb16"}.get(page.colours, "cmyk")
    return OpenedPage(
        image=samples.copy(interpretation=name), has_alpha=page.alpha is not None, finish=finish
    )


def open_as_libvips(page: Page, fail_on: str) -> OpenedPage:
    """Open a page with nothing wrong but fields that do not matter."""
    image = open_rearranged(page, {}, fail_on)
    return OpenedPage(image=image, has_alpha=bool(image.hasalpha()))


def _is_subsampled(page: Page) -> bool:
    is_raw = page.photometric == Photometric.YCBCR and page.compression != Compression.JPEG
    if not is_raw or page.subsampling == (1, 1):
        return False
    if page.is_planar or page.samples > page.colours or page.bits != 8:  # noqa: PLR2004
        raise UnsupportedFormat(
            "this tiff has chroma of less resolution than its luma, stored in a way that vipsrv does not read"
        )
    if page.is_tiled and page.compression == Compression.NONE:
        _check_tile_size(page)
    return True


def _check_tile_size(page: Page) -> None:
    """Raise ``UnsupportedFormat`` for tiles that libtiff refuses: it rounds the bytes that it read up to
    1024, and compares them with those of a tile.
    """
    across, down = page.subsampling
    width, height = page.number(Tag.TILE_WIDTH, 0), page.number(Tag.TILE_LENGTH, 0)
    size = -(-width // max(1, across)) * -(-height // max(1, down)) * (across * down + 2)
    if size % _READ_STEP:
        raise UnsupportedFormat(
            f"this tiff has chroma of less resolution in uncompressed tiles of {width} x {height} pixels, "
            "which vipsrv does not read"
        )


def _by_libtiff(page: Page, fail_on: str) -> pyvips.Image:
    """Let libtiff make RGB of YCbCr whose chroma has less resolution."""
    image = open_rearranged(page, {Tag.PHOTOMETRIC: shorts(page.photometric)}, fail_on)
    return image.extract_band(0, n=3).copy(interpretation="srgb") if image.bands > 3 else image  # noqa: PLR2004


def _wanted(samples: pyvips.Image, page: Page) -> tuple[pyvips.Image, pyvips.Image | None]:
    """Return the colours, and alpha if there is one; without all other samples."""
    colours = samples.extract_band(0, n=page.colours) if samples.bands > page.colours else samples
    return colours, None if page.alpha is None else samples[page.alpha]


def _unsigned(samples: pyvips.Image, bits: int) -> pyvips.Image:
    """Scale whole numbers to 8 or 16 bits."""
    if bits in {8, _WORD_BITS}:
        return samples
    top, kind = (BYTE, "uchar") if bits < 8 else (WORD, "ushort")  # noqa: PLR2004
    factor = top / ((1 << bits) - 1)
    return samples.linear(factor, 0.5).cast(kind)


def _scaled(colours: pyvips.Image, alpha: pyvips.Image | None, page: Page, found: Range) -> pyvips.Image:
    """Scale the range of the colours to 16 bits, or to 0…1 if they are light; alpha by its own range."""
    missing = no_data(page)
    if page.numbers_are == Numbers.FLOAT:
        # Comparisons with NaN are false.
        valid = (colours >= -found.largest) & (colours <= found.largest)
        colours = valid.ifthenelse(colours, found.low)
    if missing is not None:
        colours = (colours == missing).ifthenelse(found.low, colours)
    if found.is_light:
        colours = ((colours - found.low) * (1 / found.width)).cast("float")
    else:
        factor = WORD / found.width
        colours = colours.cast("double").linear(factor, 0.5 - found.low * factor).cast("ushort")
    if alpha is None:
        return colours
    top = found.alpha_top
    if found.is_light:
        return colours.bandjoin((alpha * (1 / top)).cast("float"))
    return colours.bandjoin(alpha.cast("double").linear(WORD / top, 0.5).cast("ushort"))


def _coloured(samples: pyvips.Image, page: Page, *, is_light: bool = False) -> pyvips.Image:
    """Make colours of samples of 8 or 16 bits, or of light from 0 to 1; alpha, if any, is the last band."""
    has_alpha = page.alpha is not None
    colours = samples.extract_band(0, n=page.colours) if samples.bands > page.colours else samples
    alpha = samples[samples.bands - 1] if has_alpha else None
    top = 1 if is_light else (BYTE if samples.format == "uchar" else WORD)
    if page.is_associated and alpha is not None:
        colours = _divided(colours, alpha, top)
    if page.photometric == Photometric.WHITE_IS_ZERO:
        colours = colours.invert() if not is_light else 1 - colours
    elif page.photometric == Photometric.CMYK:
        return _cmyk(colours, alpha, top)
    elif page.photometric == Photometric.YCBCR:
        colours = _ycbcr(colours, page, top)
    if is_light:
        colours = colours.copy(interpretation="scrgb").colourspace("rgb16")
        alpha = None if alpha is None else (alpha * WORD + 0.5).cast("ushort")
    image = colours if alpha is None else colours.bandjoin(alpha)
    is_grey = colours.bands == 1
    deep = image.format == "ushort"
    name = ("grey16" if deep else "b-w") if is_grey else ("rgb16" if deep else "srgb")
    return image.copy(interpretation=name)


def _divided(colours: pyvips.Image, alpha: pyvips.Image, top: int) -> pyvips.Image:
    """Undo the multiplication of the colours by alpha."""
    joined = colours.bandjoin(alpha).unpremultiply(max_alpha=top, alpha_band=colours.bands)
    straight = joined.extract_band(0, n=colours.bands)
    return straight if colours.format == "float" else (straight + 0.5).cast(colours.format)


def _cmyk(colours: pyvips.Image, alpha: pyvips.Image | None, top: int) -> pyvips.Image:
    """CMYK has 8 bits in libvips."""
    image = colours if alpha is None else colours.bandjoin(alpha)
    if top != BYTE:
        image = image.linear(BYTE / top, 0.5).cast("uchar")
    return image.copy(interpretation="cmyk")


def _ycbcr(colours: pyvips.Image, page: Page, top: int) -> pyvips.Image:
    """Convert YCbCr to RGB: TIFF 6.0, section 21, where the formulas are."""
    red, green, blue = (tuple(page.decimals(Tag.COEFFICIENTS)) + _RED_GREEN_BLUE)[:3]
    if Tag.COEFFICIENTS not in page.entries or not green:
        red, green, blue = _RED_GREEN_BLUE
    half = (top + 1) / 2
    black, white, *chroma = tuple(page.decimals(Tag.REFERENCE_BLACK_WHITE))[:6] or (
        0,
        top,
        half,
        top,
        half,
        top,
    )
    if len(chroma) < 4 or white == black or chroma[0] == chroma[1] or chroma[2] == chroma[3]:  # noqa: PLR2004
        black, white, chroma = 0, top, [half, top, half, top]
    full = top - half
    luma = top / (white - black)
    blueish, reddish = full / (chroma[1] - chroma[0]), full / (chroma[3] - chroma[2])
    to_red, to_blue = 2 - 2 * red, 2 - 2 * blue
    matrix = [
        [luma, 0, to_red * reddish],
        [luma, -blue * to_blue / green * blueish, -red * to_red / green * reddish],
        [luma, to_blue * blueish, 0],
    ]
    centred = colours.linear([1, 1, 1], [-black, -chroma[0], -chroma[2]])
    return (centred.recomb(pyvips.Image.new_from_array(matrix)) + 0.5).cast(colours.format)


def _lab(samples: pyvips.Image, page: Page) -> pyvips.Image:
    """Convert L*a*b* to sRGB by lcms, whose L*a*b* has the white D50 as that of a TIFF has."""
    if page.bits not in {8, _WORD_BITS} or page.numbers_are == Numbers.FLOAT:
        raise UnsupportedFormat(f"this tiff has L*a*b* of {page.bits} bits, which vipsrv does not read")
    colours, alpha = _wanted(samples, page)
    is_byte = page.bits == 8  # noqa: PLR2004
    top = BYTE if is_byte else WORD
    if page.is_associated and alpha is not None:
        alpha = _as_unsigned(alpha)
    unit = 1 if is_byte else 256  # of a* and b*
    light = _as_unsigned(colours[0])
    chroma = colours.extract_band(1, n=2)
    if page.photometric == Photometric.CIELAB:
        chroma = chroma.copy(format="char" if is_byte else "short") * (1 / unit)
        light = light * (100 / top)
    elif page.photometric == Photometric.ICCLAB:
        chroma = _as_unsigned(chroma).linear(1 / unit, -128)
        light = light * (100 / (BYTE * unit))
    else:
        decode = tuple(page.decimals(Tag.DECODE))
        low_l, high_l, *ab = decode if len(decode) == 6 else (0, 100, -85, 85, -75, 125)  # noqa: PLR2004
        light = light.linear((high_l - low_l) / top, low_l)
        chroma = _as_unsigned(chroma).linear([(ab[1] - ab[0]) / top, (ab[3] - ab[2]) / top], [ab[0], ab[2]])
    lab = light.bandjoin(chroma).cast("float").copy(interpretation="lab")
    if lab.get_typeof(PROFILE):
        lab.remove(PROFILE)
    rgb = lab.icc_export(output_profile="srgb", pcs="lab", depth=8 if is_byte else 16)
    if rgb.get_typeof(PROFILE):
        rgb = rgb.copy()
        rgb.remove(PROFILE)
    image = rgb if alpha is None else rgb.bandjoin(_as_unsigned(alpha))
    return image.copy(interpretation="srgb" if is_byte else "rgb16")


def _as_unsigned(image: pyvips.Image) -> pyvips.Image:
    formats = {"char": "uchar", "short": "ushort"}
    return image.copy(format=formats[image.format]) if image.format in formats else image


def _palette(samples: pyvips.Image, page: Page) -> pyvips.Image:
    """Replace each index by its colour."""
    if page.bits > _WORD_BITS or page.numbers_are != Numbers.UNSIGNED:
        raise UnsupportedFormat(f"this tiff has a palette for samples of {page.bits} bits")
    count = 1 << page.bits
    numbers = page.numbers(Tag.COLOUR_MAP, 3 * count)
    colours = np.zeros(3 * count, np.uint16)
    colours[: len(numbers)] = numbers
    table = np.ascontiguousarray((colours.reshape(3, count).T >> 8).astype(np.uint8))
    lut = pyvips.Image.new_from_memory(table.tobytes(), count, 1, 3, "uchar")
    index, alpha = _wanted(samples, page)
    image = index.maplut(lut)
    if alpha is not None:
        image = image.bandjoin((alpha.linear(BYTE / (count - 1), 0.5)).cast("uchar"))
    return image.copy(interpretation="srgb")
