"""Convert images of libvips from a ``ColourSpace`` to 8-bit sRGB.

Grey, and RGB that differs from sRGB by its curve only, takes one look-up for each sample. Other colours are
looked up as light, multiplied by a matrix and, if they are HDR, made darker by ``roll_off``. This is done
with the resized image, where it is the least work.
"""

from functools import lru_cache

import numpy as np
import pyvips

from vipsrv.pipeline.colour import transfer
from vipsrv.pipeline.colour.space import ColourSpace
from vipsrv.pipeline.colour.transfer import Numbers
from vipsrv.pipeline.vips.operations import shape

_RGB_BANDS = 3
_BITS = {"uchar": 8, "ushort": 16}
_BLACK, _WHITE = 16, 235
"""The codes of black and white in narrow range, of 256."""

KNEE = 0.8
"""Light, of white, up to which HDR keeps its own brightness."""

PEAK = 1000.0
"""cd/m² that become the brightest light of sRGB, like everything above."""

_MOST_LIGHT = 128.0
"""Times white: more than PQ's 10,000 cd/m² have in any channel of sRGB."""


def roll_off(light: Numbers) -> Numbers:
    """Return light of HDR as light of sRGB: the same up to ``KNEE``, from there on by a curve (Reinhard's,
    with a highest value) that reaches 1 at ``PEAK``. White itself becomes 0.9, which is the code 243.
    """
    room = 1 - KNEE
    highest = (PEAK / transfer.WHITE - KNEE) / room
    above = np.clip((light - KNEE) / room, 0, highest)
    return np.where(light <= KNEE, light, KNEE + room * above * (1 + above / highest**2) / (1 + above))


def to_srgb(image: pyvips.Image, space: ColourSpace) -> pyvips.Image:
    """Convert an image of these colours, with or without alpha, to 8-bit sRGB; grey stays grey."""
    bits = _BITS.get(shape(image).format)
    if space.is_srgb or bits is None:
        return image
    top = _top(image, bits)
    bands = image.bands - (1 if image.hasalpha() else 0)
    colour = image.extract_band(0, n=bands) if bands < image.bands else image
    if bands < _RGB_BANDS:
        converted = colour.maplut(_codes_table(space, bits, top)).copy(interpretation="b-w")
    elif space.primaries.is_srgb and not space.transfer.is_hdr:
        converted = colour.maplut(_codes_table(space, bits, top)).copy(interpretation="srgb")
    else:
        light = _light(colour.maplut(_light_table(space, bits, top)), space)
        converted = light.copy(interpretation="scrgb").colourspace("srgb")
    if bands == image.bands:
        return converted
    alpha = image.extract_band(bands)
    if bits > 8:  # noqa: PLR2004
        alpha = (alpha >> (bits - 8)).cast("uchar")
    return converted.bandjoin(alpha)


def _light(light: pyvips.Image, space: ColourSpace) -> pyvips.Image:
    """Return the light of an RGB image in the primaries of sRGB, and within its brightness."""
    if space.transfer.is_scene:
        luminance = light.recomb([list(space.primaries.luminance())])
        gain = luminance ** (transfer.HLG_SYSTEM_GAMMA - 1)
        light = light * gain * (transfer.HLG_PEAK / transfer.WHITE)
    if not space.primaries.is_srgb:
        light = light.recomb(space.primaries.to_srgb().tolist())
    if not space.transfer.is_hdr:
        return light
    # All channels by the same factor, which depends on the largest: that keeps the hue.
    largest = light[0].maxpair(light[1]).maxpair(light[2])
    place = (largest * (65535 / _MOST_LIGHT)).cast("ushort")
    return light * place.maplut(_factors_table())


def _full(bits: int) -> int:
    return (1 << bits) - 1


def _top(image: pyvips.Image, bits: int) -> int:
    """Return the code of the brightest sample. libheif's 10 and 12 bits are shifted to 16, not scaled."""
    own = image.get("bits-per-sample") if image.get_typeof("bits-per-sample") else bits
    return _full(own) << (bits - own) if 8 < own <= bits else _full(bits)  # noqa: PLR2004


@lru_cache(maxsize=8)
def _light_table(space: ColourSpace, bits: int, top: int) -> pyvips.Image:
    """The light of each code."""
    return _table(_light_of_codes(space, bits, top).astype(np.float32), "float")


@lru_cache(maxsize=8)
def _codes_table(space: ColourSpace, bits: int, top: int) -> pyvips.Image:
    """The code of sRGB for each code of a grey."""
    light = _light_of_codes(space, bits, top)
    if space.transfer.is_scene:
        light = light**transfer.HLG_SYSTEM_GAMMA * (transfer.HLG_PEAK / transfer.WHITE)
    if space.transfer.is_hdr:
        light = roll_off(light)
    light = np.clip(light, 0, 1)
    codes = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)  # noqa: PLR2004
    return _table(np.rint(codes * 255).astype(np.uint8), "uchar")


@lru_cache(maxsize=1)
def _factors_table() -> pyvips.Image:
    """What light is multiplied by, for each of 65,536 steps of the largest channel."""
    light = np.linspace(0, _MOST_LIGHT, 65536)
    light[0] = light[1]
    return _table((roll_off(light) / light).astype(np.float32), "float")


def _light_of_codes(space: ColourSpace, bits: int, top: int) -> Numbers:
    codes = np.arange(1 << bits, dtype=np.float64)
    if space.is_narrow:
        step = 1 << (bits - 8)
        codes = (codes - _BLACK * step) / ((_WHITE - _BLACK) * step)
    else:
        codes /= top
    return space.transfer.to_light(np.clip(codes, 0, 1))


def _table(values: np.ndarray, band_format: str) -> pyvips.Image:
    return pyvips.Image.new_from_memory(values.tobytes(), len(values), 1, 1, band_format)
