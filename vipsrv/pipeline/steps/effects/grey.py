"""Step: make a result grey, by the lightness that its colours have.

The luminance is computed in linear light, so that grey is as light as the colour was: pure red becomes 127,
where a weighted sum of sRGB values (luma) would give a much darker 54. The result has one band, which saves
time and bytes in every format. If it keeps an RGB profile it has three equal ones, because the profile
applies only to RGB.
"""

import pyvips

from vipsrv.pipeline.plan import DecodePlan, OutputPlan
from vipsrv.pipeline.steps.effects.pixels import join, split


def grey(image: pyvips.Image, output: OutputPlan, _decode: DecodePlan) -> pyvips.Image:
    """Return the image without colours."""
    if not output.options.grey:
        return image
    colours, alpha = split(image)
    lightness = colours.colourspace("b-w")
    if output.keep_profile:
        lightness = lightness.bandjoin([lightness, lightness]).copy(interpretation=image.interpretation)
    return join(lightness, alpha)
