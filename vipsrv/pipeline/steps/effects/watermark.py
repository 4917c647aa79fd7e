"""Step: lay a watermark over the result.

Only the part of the result under the watermark is computed again, and a small watermark is scaled once for
many results.
"""

from functools import lru_cache

import pyvips

from vipsrv.pipeline.icc_profile import pixels_in
from vipsrv.pipeline.plan import DecodePlan, OutputPlan
from vipsrv.pipeline.steps.colours import grey_to_rgb
from vipsrv.pipeline.steps.crop_or_pad import HALVES
from vipsrv.pipeline.steps.effects.pixels import RGB_BANDS, in_memory, join
from vipsrv.pipeline.steps.scale import scale_to
from vipsrv.pipeline.vips.operations import shape
from vipsrv.pipeline.watermarks import Watermark, find_watermark

_KEPT = 8
"""Scaled watermarks that are kept for the next result with one of the same size."""

_MOST_KEPT = 250_000
"""Pixels of one that is kept: eight of them take 8 MB."""


def watermark(image: pyvips.Image, output: OutputPlan, decode: DecodePlan) -> pyvips.Image:
    """Return the image with the watermark that the options name."""
    options = output.options
    if options.watermark is None or not options.watermark_opacity:
        return image
    found = find_watermark(options.watermark)
    width, height, *_ = shape(image)
    across, down = found.size_within(options.watermark_scale, width, height)
    scale = _scaled_before if across * down <= _MOST_KEPT else _scaled
    over = scale(found, across, down)
    colours, alpha = over.extract_band(0, n=RGB_BANDS), over.extract_band(RGB_BANDS)
    if output.keep_profile:
        colours = pixels_in(image, colours)
    if options.watermark_opacity < 1:
        alpha = alpha.linear(options.watermark_opacity, 0.5, uchar=True)
    halves_left, halves_above = HALVES[options.watermark_position]
    left, above = (width - across) * halves_left // 2, (height - down) * halves_above // 2
    image = grey_to_rgb(in_memory(image, decode))  # the part under the watermark is read twice
    below = image.crop(left, above, across, down)
    if shape(image).bands == RGB_BANDS:
        mixed = alpha.ifthenelse(colours, below, blend=True)
    else:
        mixed = (below.composite2(join(colours, alpha), "over") + 0.5).cast("uchar")  # the cast cuts off
    return image.insert(mixed, left, above)


def _scaled(mark: Watermark, width: int, height: int) -> pyvips.Image:
    return scale_to(mark.image, width, height).copy_memory()


_scaled_before = lru_cache(maxsize=_KEPT)(_scaled)
