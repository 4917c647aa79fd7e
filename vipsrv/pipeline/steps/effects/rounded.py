"""Step: round the corners.

The corners become transparent, with smooth edges; in a format without transparency they get the background's
colour. A radius of half of the shorter side makes a circle or a stadium, and a larger one the same.
"""

import numpy as np
import pyvips
from numpy.typing import NDArray

from vipsrv.pipeline.plan import DecodePlan, OutputPlan
from vipsrv.pipeline.steps.background import with_colour
from vipsrv.pipeline.steps.effects.pixels import OPAQUE, join, split
from vipsrv.pipeline.vips.operations import shape


def rounded(image: pyvips.Image, output: OutputPlan, _decode: DecodePlan) -> pyvips.Image:
    """Return the image with rounded corners."""
    radius = output.options.rounded
    if radius is None:
        return image
    width, height, *_ = shape(image)
    mask = _mask(width, height, min(radius, width / 2, height / 2))
    colours, alpha = split(image)
    if output.writer.alpha:
        return join(colours, mask if alpha is None else _product(alpha, mask))
    colours, background = with_colour(colours, output)
    mixed = mask.ifthenelse(colours, background, blend=True)
    return mixed.copy(interpretation=colours.interpretation)


def _product(alpha: pyvips.Image, mask: pyvips.Image) -> pyvips.Image:
    return (alpha * mask * (1 / OPAQUE) + 0.5).cast("uchar")


def _mask(width: int, height: int, radius: float) -> pyvips.Image:
    """Return how much of each pixel is within the rounded rectangle, 0 to 255.

    Only the rows that touch a corner are made: those at the bottom are the ones at the top, upside down.
    """
    corner = _corner(radius)
    side = len(corner)
    rows = np.full((side, width), OPAQUE, np.uint8)
    rows[:, :side] = corner
    # At the middle of an odd side both corners have the same pixel, which is within both arcs.
    np.minimum(rows[:, width - side :], corner[:, ::-1], out=rows[:, width - side :])
    below = min(side, height - side)
    parts = [pyvips.Image.new_from_memory(rows, width, side, 1, "uchar")]
    if height > 2 * side:
        parts.append(pyvips.Image.black(width, height - 2 * side).linear(1, OPAQUE, uchar=True))
    if below:
        upside_down = np.ascontiguousarray(rows[:below][::-1])
        parts.append(pyvips.Image.new_from_memory(upside_down, width, below, 1, "uchar"))
    mask = parts[0]
    for part in parts[1:]:
        mask = mask.join(part, "vertical")
    return mask


def _corner(radius: float) -> NDArray[np.uint8]:
    """Return the corner at the left and top. A pixel's part within the arc is taken from the distance of its
    centre, which is right to 2 % for radii from 3 pixels.
    """
    side = int(np.ceil(radius))
    distance = radius - (np.arange(side, dtype=np.float32) + 0.5)
    from_centre = np.hypot(distance[:, None], distance[None, :])
    inside = np.clip(radius - from_centre + 0.5, 0, 1)
    corner: NDArray[np.uint8] = (inside * OPAQUE + 0.5).astype(np.uint8)
    return corner
