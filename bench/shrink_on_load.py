"""Which reduced decode of a JPEG a result was made from: 1/1, 1/2, 1/4 or 1/8 of the size.

A JPEG decoder reduces by these factors at little cost, and servers differ in how far they go before they
resize. It cannot be read from a result, but it can be seen: each factor leaves its own error. The result is
compared with what a Lanczos reduction of each decode gives as a JPEG of quality 85, and the nearest one tells
the factor.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyvips

from bench.image_quality import Pixels, decode

FACTORS = (1, 2, 4, 8)

_QUALITY = 85

_CLEAR = 1.02
"""How much larger the mean squared difference to the second nearest has to be, else no factor is told."""


def shrink_factor(result: Pixels, image: Path) -> int | None:
    """The factor by which the decoder reduced the JPEG; ``None`` for other files, and if it is not clear."""
    if image.suffix != ".jpg":
        return None
    height, width, _ = result.shape
    differences = sorted(
        (float(np.mean((result.astype(np.float32) - decoded) ** 2)), factor)
        for factor, decoded in _decoded(image, width, height).items()
    )
    if len(differences) > 1 and differences[1][0] < differences[0][0] * _CLEAR:
        return None
    return differences[0][1]


@lru_cache(maxsize=2)
def _decoded(image: Path, width: int, height: int) -> dict[int, Pixels]:
    """The result's size by Lanczos from each reduced decode that is not smaller."""
    found = {}
    for factor in FACTORS:
        decoded: Any = pyvips.Image.jpegload(str(image), shrink=factor)
        if factor > 1 and (decoded.width < width or decoded.height < height):
            break
        across, down = width / decoded.width, height / decoded.height
        small = decoded.colourspace("srgb").resize(across, vscale=down, kernel="lanczos3", gap=0)
        found[factor] = decode(small.jpegsave_buffer(Q=_QUALITY, keep="none"))
    return found
