"""The colours of red, green, blue and white of an RGB space, and the matrix from its light to that of sRGB.

Source: ITU-T H.273 (2024), table 2, for the numbers of ``colour_primaries``. Where the white of a space is
not that of sRGB, colours are adapted with the Bradford matrix, as ICC profiles do (ICC.1:2022, annex E).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

_D65 = (0.3127, 0.3290)
_C = (0.310, 0.316)
_DCI = (0.314, 0.351)
_EQUAL = (1 / 3, 1 / 3)

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

_SAME = 0.002
"""Primaries that differ by no more from those of sRGB are sRGB's: less than half a grey level."""

_MIN_AREA = 0.005
"""The least area of the triangle of the primaries: that of sRGB is 0.11. In a smaller one white would not be
made of real amounts of each."""


@dataclass(frozen=True, slots=True)
class Primaries:
    """The chromaticities (x, y) of red, green, blue and white."""

    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]
    white: tuple[float, float]

    @property
    def is_srgb(self) -> bool:
        """Whether these are the primaries and the white of sRGB."""
        pairs = zip(self.values, SRGB.values, strict=True)
        return all(abs(own - other) <= _SAME for own, other in pairs)

    @property
    def values(self) -> tuple[float, ...]:
        """The eight numbers."""
        return (*self.red, *self.green, *self.blue, *self.white)

    @property
    def is_possible(self) -> bool:
        """Whether these are colours, with which light can be computed: white lies within their triangle."""
        corners = (self.red, self.green, self.blue)
        is_in_range = all(-0.2 <= x <= 1.2 and -0.2 <= y <= 1.2 for x, y in corners)  # noqa: PLR2004
        x, y = self.white
        if not is_in_range or not 0 < x < 1 or not 0.05 < y < 1:  # noqa: PLR2004
            return False
        area = _area(*corners)
        if abs(area) < _MIN_AREA:
            return False
        shares = (
            _area(self.white, self.green, self.blue) / area,
            _area(self.red, self.white, self.blue) / area,
            _area(self.red, self.green, self.white) / area,
        )
        return all(share > 0.01 for share in shares)  # noqa: PLR2004

    def to_xyz(self) -> Matrix:
        """Return the matrix from linear RGB to CIE XYZ, in which white has Y = 1."""
        colours = np.array([self.red, self.green, self.blue]).T
        # Columns of x, y, z instead of XYZ: a primary of ACES has y = 0 or less, by which none can divide.
        columns = np.vstack([colours, 1 - colours.sum(axis=0)])
        amounts = np.linalg.solve(columns, _xyz(self.white))
        return np.asarray(columns * amounts)

    def to_srgb(self) -> Matrix:
        """Return the matrix from linear RGB to the linear RGB of sRGB; white stays white."""
        adapted = _adaptation(self.white) @ self.to_xyz()
        return np.asarray(np.linalg.inv(SRGB.to_xyz()) @ adapted)

    def luminance(self) -> tuple[float, float, float]:
        """Return how much of the luminance of white red, green and blue have."""
        red, green, blue = (float(share) for share in self.to_xyz()[1])
        return red, green, blue


SRGB = Primaries((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65)

BT2020 = Primaries((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65)

_BT601_525 = Primaries((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65)

BY_NUMBER = {
    1: SRGB,  # BT.709
    4: Primaries((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),  # BT.470 System M
    5: Primaries((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _D65),  # BT.601 with 625 lines
    6: _BT601_525,
    7: _BT601_525,  # SMPTE ST 240
    8: Primaries((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),  # film
    9: BT2020,
    10: Primaries((1, 0), (0, 1), (0, 0), _EQUAL),  # CIE XYZ, SMPTE ST 428
    11: Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _DCI),  # DCI-P3
    12: Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),  # Display P3
    22: Primaries((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),  # EBU Tech 3213
}
"""The primaries by their number in H.273."""


def _xyz(colour: tuple[float, float]) -> Matrix:
    x, y = colour
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _adaptation(white: tuple[float, float]) -> Matrix:
    """Return the matrix that adapts colours seen under ``white`` to D65."""
    cones = np.diag((_BRADFORD @ _xyz(SRGB.white)) / (_BRADFORD @ _xyz(white)))
    return np.asarray(np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD)


def _area(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    """Return the area of a triangle, negative if it goes clockwise."""
    return ((b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])) / 2
