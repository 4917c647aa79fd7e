"""Step: crop the resized image (``cover``) or place it on a canvas (``contain``)."""

from dataclasses import replace

import pyvips

from vipsrv.options import Fit, Position
from vipsrv.pipeline.icc_profile import colour_in
from vipsrv.pipeline.option_rules import is_by_content
from vipsrv.pipeline.plan import DecodePlan, OutputPlan

HALVES = {
    Position.CENTRE: (1, 1),
    Position.TOP: (1, 0),
    Position.RIGHT_TOP: (2, 0),
    Position.RIGHT: (2, 1),
    Position.RIGHT_BOTTOM: (2, 2),
    Position.BOTTOM: (1, 2),
    Position.LEFT_BOTTOM: (0, 2),
    Position.LEFT: (0, 1),
    Position.LEFT_TOP: (0, 0),
}
"""How much of the free space is to the left of and above the image, in halves."""


def with_place(output: OutputPlan, image: pyvips.Image) -> OutputPlan:
    """Return the plan with the part that ``cover`` keeps of this frame, for all frames of an animation: else
    it would jump. ``image`` has the size of the whole result before it is cropped.
    """
    width, height = output.geometry.width, output.geometry.height
    is_cropped = (width, height) != output.geometry.scaled and output.options.fit is Fit.COVER
    if output.place is not None or not is_cropped or not is_by_content(output.options):
        return output
    kept = image.smartcrop(width, height, interesting=output.options.position.value)
    return replace(output, place=(-kept.xoffset, -kept.yoffset))


def crop_or_pad(image: pyvips.Image, output: OutputPlan, _decode: DecodePlan) -> pyvips.Image:
    """Return the image in the size of the result. The canvas is opaque even if transparency is kept."""
    geometry, options = output.geometry, output.options
    width, height = geometry.width, geometry.height
    if (width, height) == geometry.scaled:
        return image
    if output.place is not None:
        return image.crop(*output.place, width, height)
    if options.fit is Fit.COVER and is_by_content(options):
        return image.smartcrop(width, height, interesting=options.position.value)
    halves_left, halves_above = HALVES[options.position]
    across, down = geometry.scaled
    left, above = abs(width - across) * halves_left // 2, abs(height - down) * halves_above // 2
    if options.fit is Fit.COVER:
        return image.crop(left, above, width, height)
    colour = colour_in(image, options.background, own_profile=output.keep_profile)
    if image.hasalpha():
        colour.append(255.0)
    return image.embed(left, above, width, height, extend="background", background=colour)
