"""Steps: crop the resized image (``cover``), place it on a canvas (``contain``); add a border (``pad``)."""

from dataclasses import replace

import pyvips

from vipsrv.options import Fit, Position
from vipsrv.pipeline.option_rules import is_by_content
from vipsrv.pipeline.plan import DecodePlan, OutputPlan
from vipsrv.pipeline.steps.background import with_colour

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
    width, height = output.geometry.fitted
    is_cropped = output.geometry.fitted != output.geometry.scaled and output.options.fit is Fit.COVER
    if output.place is not None or not is_cropped or not is_by_content(output.options):
        return output
    kept = image.smartcrop(width, height, interesting=output.options.position.value)
    return replace(output, place=(-kept.xoffset, -kept.yoffset))


def crop_or_pad(image: pyvips.Image, output: OutputPlan, _decode: DecodePlan) -> pyvips.Image:
    """Return the image in the size of the result. The canvas is opaque even if transparency is kept."""
    geometry, options = output.geometry, output.options
    width, height = geometry.fitted
    if geometry.fitted == geometry.scaled:
        return image
    if output.place is not None:
        return image.crop(*output.place, width, height)
    if options.fit is Fit.COVER and is_by_content(options):
        return image.smartcrop(width, height, interesting=options.position.value)
    across, down = geometry.scaled
    if options.focus is not None:
        x, y = options.focus
        return image.crop(_start(x, across, width), _start(y, down, height), width, height)
    halves_left, halves_above = HALVES[options.position]
    left, above = abs(width - across) * halves_left // 2, abs(height - down) * halves_above // 2
    if options.fit is Fit.COVER:
        return image.crop(left, above, width, height)
    return _placed(image, output, left, above, geometry.fitted)


def add_border(image: pyvips.Image, output: OutputPlan, _decode: DecodePlan) -> pyvips.Image:
    """Return the image with the border of ``pad``, which is opaque even if transparency is kept."""
    if output.options.pad is None:
        return image
    top, _, _, left = output.options.pad
    return _placed(image, output, left, top, (output.geometry.width, output.geometry.height))


def _placed(
    image: pyvips.Image, output: OutputPlan, left: int, above: int, size: tuple[int, int]
) -> pyvips.Image:
    image, colour = with_colour(image, output)
    if image.hasalpha():
        colour.append(255.0)
    return image.embed(left, above, *size, extend="background", background=colour)


def _start(focus: float, side: int, kept: int) -> int:
    """Return where ``kept`` pixels of a ``side`` begin whose centre is as close to the focus as can be."""
    return max(0, min(round(focus * side - kept / 2), side - kept))
