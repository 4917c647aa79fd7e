"""Predict what the effects of a result take: memory for images that they keep, and CPU time.

The seconds were measured with results of 800 × 600 pixels (``python -m bench.tools.operations``), for three
bands, and are rounded up.
"""

from dataclasses import dataclass

from vipsrv.options import ResizeOptions
from vipsrv.pipeline.formats.base import MEGA

_MODULATE, _GREY, _SHARPEN, _UNSHARP, _WATERMARK, _ROUNDED = 0.014, 0.01, 0.01, 0.03, 0.01, 0.012
"""Seconds for a megapixel of the result."""

_BLUR, _BLUR_SIGMA = 0.01, 0.001
"""Seconds for a megapixel, and more for each pixel of sigma."""

_OVERLAY, _CORNERS = 4, 4
"""Bytes for a pixel of the result, at most: the watermark, and the mask while its corners are made."""

_MOST_SIGMA = 40
"""A blur by more takes no longer, because the image is reduced first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectsCost:
    """Bytes that are kept at the same time, and CPU seconds."""

    memory: float
    seconds: float


def effects_cost(options: ResizeOptions, pixels: int, *, alpha: bool) -> EffectsCost:
    """Return the cost of the effects of a result of so many ``pixels``."""
    if not options.has_effects:
        return EffectsCost(memory=0, seconds=0)
    seconds = 0.0
    copies = 0  # of the image, in memory
    beside = 0
    if options.modulate is not None:
        seconds += _MODULATE
    if options.grey:
        seconds += _GREY
    if options.blur is not None:
        seconds += _BLUR + _BLUR_SIGMA * min(options.blur, _MOST_SIGMA)
        copies += 1
    if options.sharpen is not False:
        seconds += _SHARPEN if options.sharpen is True else _UNSHARP
        copies += 1
    if options.watermark is not None:
        seconds += _WATERMARK
        copies += 1
        beside += _OVERLAY
    if options.rounded is not None:
        seconds += _ROUNDED
        beside += _CORNERS
    bands = 4 if alpha else 3
    # Colours that are weighted by alpha are floats for a moment.
    slower = 2.5 if alpha else 1.0
    return EffectsCost(memory=pixels * (copies * bands + beside), seconds=seconds * slower * pixels / MEGA)
