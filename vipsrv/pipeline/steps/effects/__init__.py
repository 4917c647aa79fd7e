"""The steps that change what a result looks like, in their fixed order; one file each.

They come when a result has its size, before it is encoded. Each takes and returns 8-bit pixels: RGB in sRGB
or in the profile that the result keeps, or grey after ``grey``; with alpha or without. A step whose option is
off returns the image itself, so a result without effects costs nothing more.

Why each of them is done in this way, with figures: docs/decisions/0061-effects.md.
"""

from vipsrv.pipeline.steps.effects.blur import blur
from vipsrv.pipeline.steps.effects.grey import grey
from vipsrv.pipeline.steps.effects.modulate import modulate
from vipsrv.pipeline.steps.effects.rounded import rounded
from vipsrv.pipeline.steps.effects.sharpen import sharpen
from vipsrv.pipeline.steps.effects.watermark import watermark

EFFECT_STEPS = (modulate, grey, blur, sharpen, watermark, rounded)
"""In this order."""

__all__ = ["EFFECT_STEPS"]
