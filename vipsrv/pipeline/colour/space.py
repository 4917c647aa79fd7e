"""The colours of an image as its file states them: the numbers of CICP, or a PNG's gamma and chromaticities.

Source: ITU-T H.273 (2024), section 8; PNG (Third Edition), W3C, sections 11.3.2 and 12.
"""

from dataclasses import dataclass
from functools import lru_cache

from vipsrv.pipeline.colour import primaries, transfer
from vipsrv.pipeline.colour.primaries import Primaries
from vipsrv.pipeline.colour.transfer import Transfer

_UNSPECIFIED = 2
_HDR = (16, 18)

_SRGB_GAMMA, _GAMMA_TOLERANCE = 1 / 2.2, 0.05
"""What encoders write for sRGB, whose curve no power is, and the share by which libpng lets it differ."""

_MIN_GAMMA, _MAX_GAMMA = 0.2, 5.0
"""What a PNG's gamma can be; others are mistakes."""


@dataclass(frozen=True, slots=True)
class ColourSpace:
    """The colours of an RGB or grey image. ``is_narrow``: black and white are the codes 16 and 235 of 256."""

    primaries: Primaries
    transfer: Transfer
    is_narrow: bool = False

    @property
    def is_srgb(self) -> bool:
        """Whether the pixels are those of sRGB, and need no conversion."""
        return self.transfer is transfer.SRGB and self.primaries.is_srgb and not self.is_narrow


SRGB = ColourSpace(primaries.SRGB, transfer.SRGB)


def from_cicp(colours: int, curve: int, *, is_narrow: bool = False) -> ColourSpace | None:
    """Return the colours of two numbers of H.273; ``None`` if they are unknown, or nothing is specified."""
    if colours == curve == _UNSPECIFIED:
        return None
    assumed = primaries.BT2020 if curve in _HDR else primaries.SRGB
    own_primaries = primaries.BY_NUMBER.get(colours) if colours != _UNSPECIFIED else assumed
    own_transfer = transfer.BY_NUMBER.get(curve) if curve != _UNSPECIFIED else transfer.SRGB
    if own_primaries is None or own_transfer is None:
        return None
    return ColourSpace(own_primaries, own_transfer, is_narrow)


def from_gamma(gamma: float | None, chromaticities: Primaries | None) -> ColourSpace | None:
    """Return the colours of a PNG by its gamma, the exponent from light to codes, and its chromaticities.

    What is missing or nonsense is that of sRGB; ``None`` if both are.
    """
    if gamma is not None and not _MIN_GAMMA <= gamma <= _MAX_GAMMA:
        gamma = None
    if chromaticities is not None and not chromaticities.is_possible:
        chromaticities = None
    if gamma is None and chromaticities is None:
        return None
    own = primaries.SRGB if chromaticities is None or chromaticities.is_srgb else chromaticities
    is_like_srgb = gamma is None or abs(gamma / _SRGB_GAMMA - 1) <= _GAMMA_TOLERANCE
    if gamma is None or (is_like_srgb and own is primaries.SRGB):
        return ColourSpace(own, transfer.SRGB)
    return ColourSpace(own, _power(1 / gamma))


@lru_cache(maxsize=16)
def _power(exponent: float) -> Transfer:
    """The same object for the same curve, so that its tables are made once."""
    return transfer.power(exponent)
