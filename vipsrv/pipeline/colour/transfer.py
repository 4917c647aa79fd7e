"""Transfer characteristics: the curves between the codes of an image, from 0 to 1, and light.

Light is 1 for the white of sRGB. For PQ and HLG that is diffuse white of 203 cd/m² (ITU-R BT.2408-7, section
2.2); their highlights are brighter than 1.

Sources: ITU-T H.273 (2024), table 3, for the numbers of ``transfer_characteristics`` and the curves of
video; IEC 61966-2-1 for sRGB; ITU-R BT.2100-2, tables 4 and 5, for PQ and HLG.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

WHITE = 203.0
"""cd/m² of diffuse white in PQ and HLG."""

_PQ_PEAK = 10_000.0
HLG_PEAK = 1000.0
"""cd/m²: the highest light of PQ, and that of the display for which HLG is shown."""

HLG_SYSTEM_GAMMA = 1.2
"""The exponent of HLG's opto-optical transfer function on a display of 1,000 cd/m²."""

_STEPS = 4096
"""Codes between which ``to_code`` interpolates."""


@dataclass(frozen=True, eq=False)
class Transfer:
    """A curve. ``to_light`` maps codes to light. ``is_hdr``: there is light above white. ``is_scene``: the
    light is that of the scene, and HLG's system gamma still has to be applied to it.
    """

    to_light: Callable[[Numbers], Numbers]
    is_hdr: bool = False
    is_scene: bool = False

    @cached_property
    def _table(self) -> tuple[Numbers, Numbers]:
        codes = np.linspace(0, 1, _STEPS)
        return self.to_light(codes), codes

    def to_code(self, light: Numbers) -> Numbers:
        """Return the codes of some light."""
        known, codes = self._table
        return np.asarray(np.interp(light, known, codes))


def _srgb(code: Numbers) -> Numbers:
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)  # noqa: PLR2004


def _pq(code: Numbers) -> Numbers:
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = code ** (1 / m2)
    return np.asarray((np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1) * (_PQ_PEAK / WHITE))


def _hlg(code: Numbers) -> Numbers:
    """Return the light of the scene, from 0 to 1."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)  # noqa: PLR2004


def power(exponent: float) -> Transfer:
    """Return the curve that is a power of the code."""
    return Transfer(lambda code: code**exponent)


def _logarithmic(decades: float) -> Transfer:
    return Transfer(lambda code: np.where(code <= 0, 0.0, 10 ** (decades * (code - 1))))


SRGB = Transfer(_srgb)
PQ = Transfer(_pq, is_hdr=True)
HLG = Transfer(_hlg, is_hdr=True, is_scene=True)

BY_NUMBER = {
    # The curves of video are those of its cameras, and its displays have others. Browsers show such images as
    # if they were sRGB, which lies between the two (docs/decisions/0055-colours-by-number.md).
    **dict.fromkeys((1, 6, 7, 11, 12, 14, 15), SRGB),
    4: power(2.2),  # BT.470 System M
    5: power(2.8),  # BT.470 System B, G
    8: power(1.0),
    9: _logarithmic(2),
    10: _logarithmic(2.5),
    13: SRGB,
    16: PQ,
    17: Transfer(lambda code: code**2.6 * (52.37 / 48)),  # SMPTE ST 428
    18: HLG,
}
"""The curves by their number in H.273."""
