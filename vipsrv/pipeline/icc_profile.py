"""ICC profiles: recognise those that are sRGB, which need no conversion, and convert a colour to others.

Most profiles in photographs on the web are sRGB, in a dozen versions from different makers. A conversion
between two of them changes a pixel by a rounding error at most, and takes longer than the resize. They are
recognised by their content and not by a name or checksum: a matrix with sRGB's primaries, and three curves
like sRGB's.

Sources: ICC.1:2022 (profile version 4.4) for the layout; IEC 61966-2-1 for sRGB.
"""

import struct
from functools import lru_cache

import pyvips

from vipsrv.pipeline.vips.fields import PROFILE

_RGB = {"srgb", "rgb16"}

_MAX_SIZE = 16_384
"""Bytes: a larger profile contains tables, and would fill the cache below."""

_HEADER = 128  # bytes, ICC.1:2022 section 7.2
_MAX_TAGS = 64
_TAG = struct.Struct(">4sII")
_PRIMARIES = {
    b"rXYZ": (0.4361, 0.2225, 0.0139),
    b"gXYZ": (0.3851, 0.7169, 0.0971),
    b"bXYZ": (0.1431, 0.0606, 0.7141),
}
"""sRGB's red, green and blue, adapted to D50 with the Bradford matrix: the sRGB profile of the ICC."""

_TABLE_TAGS = {b"A2B0", b"A2B1", b"A2B2", b"D2B0", b"D2B1", b"D2B2", b"D2B3"}
"""A profile with one of these tags must be applied by its table; its matrix is ignored."""

_PRIMARY_TOLERANCE = 0.002  # of a luminance of 1; below half a grey level
_CURVE_TOLERANCE = 1 / 255  # one grey level at most
_LINEAR_BELOW = 0.0031308  # of a luminance of 1, IEC 61966-2-1
_PARAMETERS = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}  # of a parametric curve, by its kind: section 10.18


def is_srgb(profile: bytes) -> bool:
    """Whether a conversion from this profile to sRGB would change every pixel by about one grey level at
    most.
    """
    return len(profile) <= _MAX_SIZE and _is_srgb(profile)


def has_rgb_profile(image: pyvips.Image) -> bool:
    """Whether the image is RGB and has a valid profile, which a result can keep.

    Display P3 and Adobe RGB are the usual cases. Grey and CMYK images always become sRGB, because
    most formats hold neither, and the colour of a background is RGB.
    """
    if image.interpretation not in _RGB or not image.get_typeof(PROFILE):
        return False
    try:
        pixel = _with_profile_of(image, pyvips.Image.black(1, 1, bands=3).copy(interpretation="srgb"))
        pixel.icc_import(embedded=True)(0, 0)
    except pyvips.Error:
        return False
    return True


def is_written(image: pyvips.Image, saver: str) -> bool:
    """Whether ``saver`` writes the profile of the image: libpng refuses one whose length, for example, is not
    the one that it states.
    """
    pixel = _with_profile_of(image, pyvips.Image.black(1, 1, bands=3).copy(interpretation="srgb"))
    try:
        pyvips.Operation.call(saver, pixel, keep="icc")
    except pyvips.Error:
        return False
    return True


def colour_in(image: pyvips.Image, background: str, *, own_profile: bool) -> list[float]:
    """Return ``#rrggbb`` as band values in sRGB or, if ``own_profile``, in the RGB space of the image. If its
    profile does not say how to make a colour, the values are those of sRGB.
    """
    colour = [float(part) for part in bytes.fromhex(background[1:])]
    if not own_profile:
        return colour
    pixel = (pyvips.Image.black(1, 1, bands=3) + colour).cast("uchar").copy(interpretation="srgb")
    exported: list[float] = pixels_in(image, pixel)(0, 0)
    return exported


def pixels_in(image: pyvips.Image, pixels: pyvips.Image) -> pyvips.Image:
    """Return sRGB pixels in the RGB space of an image's profile; unchanged if that does not say how."""
    try:
        return _with_profile_of(image, pixels.colourspace("lab")).icc_export(depth=8).copy_memory()
    except pyvips.Error:
        return pixels


def _with_profile_of(image: pyvips.Image, pixel: pyvips.Image) -> pyvips.Image:
    pixel = pixel.copy()
    pixel.set_type(pyvips.GValue.blob_type, PROFILE, image.get(PROFILE))
    return pixel


@lru_cache(maxsize=32)
def _is_srgb(profile: bytes) -> bool:
    try:
        tags = _tags(profile)
        return (
            tags is not None
            and not _TABLE_TAGS & tags.keys()
            and all(_has_colour(tags[name], colour) for name, colour in _PRIMARIES.items())
            and all(_has_curve(data) for data in {tags[b"rTRC"], tags[b"gTRC"], tags[b"bTRC"]})
        )
    except (struct.error, KeyError, ValueError, ArithmeticError):  # truncated, or not a matrix profile
        return False


def _tags(profile: bytes) -> dict[bytes, bytes] | None:
    if profile[12:24] != b"mntrRGB XYZ " or profile[36:40] != b"acsp":
        return None
    (count,) = struct.unpack_from(">I", profile, _HEADER)
    if count > _MAX_TAGS:
        return None
    entries = (_TAG.unpack_from(profile, _HEADER + 4 + _TAG.size * index) for index in range(count))
    return {name: profile[offset : offset + size] for name, offset, size in entries}


def _has_colour(data: bytes, colour: tuple[float, ...]) -> bool:
    if data[:4] != b"XYZ ":
        return False
    found = struct.unpack_from(">3i", data, 8)
    return all(
        abs(number / 65536 - wanted) <= _PRIMARY_TOLERANCE
        for number, wanted in zip(found, colour, strict=True)
    )


def _has_curve(data: bytes) -> bool:
    """Whether a tone curve maps each of the 256 codes to the same light as sRGB."""
    codes = [code / 255 for code in range(256)]
    if data[:4] == b"curv":
        linear = _sampled(data, codes)
    elif data[:4] == b"para":
        linear = [_parametric(data, code) for code in codes]
    else:
        return False
    return all(
        abs(_to_code(light) - code) <= _CURVE_TOLERANCE for light, code in zip(linear, codes, strict=True)
    )


def _sampled(data: bytes, codes: list[float]) -> list[float]:
    (count,) = struct.unpack_from(">I", data, 8)
    if count == 0:
        return codes
    if count == 1:
        gamma = struct.unpack_from(">H", data, 12)[0] / 256
        return [float(code**gamma) for code in codes]
    table = [value / 65535 for value in struct.unpack_from(f">{count}H", data, 12)]
    linear = []
    for code in codes:
        place = code * (count - 1)
        below = min(int(place), count - 2)
        linear.append(table[below] + (table[below + 1] - table[below]) * (place - below))
    return linear


def _parametric(data: bytes, code: float) -> float:
    (kind,) = struct.unpack_from(">H", data, 8)
    given = [number / 65536 for number in struct.unpack_from(f">{_PARAMETERS[kind]}i", data, 12)]
    # All kinds are special cases of (a x + b)^g + e from d on, and c x + f below d.
    g, a, b, c, d, e, f = given + [0.0] * (7 - len(given))
    if kind == 0:
        a = 1.0
    elif kind in (1, 2):
        e = f = c  # kind 2 adds c on both sides; kind 1 has no c
        c, d = 0.0, -b / a
    return float((a * code + b) ** g + e) if code >= d else c * code + f


def _to_code(light: float) -> float:
    light = min(max(light, 0.0), 1.0)
    return 12.92 * light if light <= _LINEAR_BELOW else float(1.055 * light ** (1 / 2.4) - 0.055)
