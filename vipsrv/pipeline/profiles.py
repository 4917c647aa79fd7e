"""Whether an ICC profile is sRGB itself, so that nothing has to be converted.

Most profiles in photographs of the web are, in a dozen versions by as many makers. Converting from one to
another of them changes a pixel by a rounding and takes longer than resizing. They are recognised by what they
say and not by their name or a checksum: a matrix of sRGB's primaries and three curves that are sRGB's.

Sources: ICC.1:2022 (profile version 4.4) for the layout; IEC 61966-2-1 for sRGB.
"""

import struct
from functools import lru_cache

_LARGEST = 16_384
"""Bytes: a profile above that has tables in it, and would fill the cache below."""

_HEADER = 128  # bytes, ICC.1:2022 section 7.2
_MOST_TAGS = 64
_TAG = struct.Struct(">4sII")
_PRIMARIES = {
    b"rXYZ": (0.4361, 0.2225, 0.0139),
    b"gXYZ": (0.3851, 0.7169, 0.0971),
    b"bXYZ": (0.1431, 0.0606, 0.7141),
}
"""sRGB's red, green and blue, adapted to D50 with the Bradford matrix: the sRGB profile of the ICC."""

_TABLE_TAGS = {b"A2B0", b"A2B1", b"A2B2", b"D2B0", b"D2B1", b"D2B2", b"D2B3"}
"""A profile with one of these is to be read by its table, whatever its matrix says."""

_PRIMARY_TOLERANCE = 0.002  # of a luminance of 1; below half a grey level
_CURVE_TOLERANCE = 1 / 255  # one grey level at most
_LINEAR_BELOW = 0.0031308  # of a luminance of 1, IEC 61966-2-1
_PARAMETERS = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}  # of a parametric curve, by its kind: section 10.18


def is_srgb(profile: bytes) -> bool:
    """Whether converting from this profile to sRGB would leave every pixel within one grey level or so."""
    return len(profile) <= _LARGEST and _is_srgb(profile)


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
    except (struct.error, KeyError, ValueError, ArithmeticError):  # cut off, or no matrix profile
        return False


def _tags(profile: bytes) -> dict[bytes, bytes] | None:
    if profile[12:24] != b"mntrRGB XYZ " or profile[36:40] != b"acsp":
        return None
    (count,) = struct.unpack_from(">I", profile, _HEADER)
    if count > _MOST_TAGS:
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
    """Whether a tone curve takes each of the 256 codes to what sRGB takes it to."""
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
    # All kinds are cases of (a x + b)^g + e from d on and c x + f below.
    g, a, b, c, d, e, f = given + [0.0] * (7 - len(given))
    if kind == 0:
        a = 1.0
    elif kind in (1, 2):
        e = f = c  # the third kind's c is added on both sides, the second kind has none
        c, d = 0.0, -b / a
    return float((a * code + b) ** g + e) if code >= d else c * code + f


def _to_code(light: float) -> float:
    light = min(max(light, 0.0), 1.0)
    return 12.92 * light if light <= _LINEAR_BELOW else float(1.055 * light ** (1 / 2.4) - 0.055)
