"""Step: flatten transparency onto the background colour, unless the result keeps it.

This comes before the resize: opaque pixels can be averaged without mixing in the hidden colours of
transparent pixels, which cause dark fringes. (``thumbnail`` premultiplies by alpha for the same purpose. That
takes longer, and ``thumbnail`` omits it if only one of the two sides changes.)
"""

import pyvips

from vipsrv.pipeline.icc_profile import colour_in
from vipsrv.pipeline.plan import DecodePlan, OutputPlan
from vipsrv.pipeline.steps.colours import grey_to_rgb, three_bands, to_srgb, transform_profile
from vipsrv.pipeline.vips.fields import PROFILE

_WHITE = {"srgb": 255, "b-w": 255, "rgb16": 65535, "grey16": 65535}
"""White in those colour spaces in which it is the same for every ICC profile."""


def flatten_alpha(image: pyvips.Image, decode: DecodePlan) -> pyvips.Image:
    """Return the image without alpha; unchanged if it has none or keeps it, or states its colours by numbers:
    of linear light and HDR the mean with the background would be another one than that of sRGB.
    """
    if not decode.header.info.has_alpha or decode.background is None or decode.header.colours is not None:
        return image
    white = _WHITE.get(image.interpretation)
    if decode.background.lower() == "#ffffff" and white is not None:
        return three_bands(image.flatten(background=white), decode)
    # The background is an sRGB colour, so the image must become sRGB first.
    if image.get_typeof(PROFILE) and not decode.keep_profile:
        image = transform_profile(image)
    image = to_srgb(image, decode)
    colour = colour_in(image, decode.background, own_profile=decode.keep_profile)
    return three_bands(image.flatten(background=colour), decode)


def flatten_result(image: pyvips.Image, output: OutputPlan, decode: DecodePlan) -> pyvips.Image:
    """Flatten the alpha that the decode kept for another result."""
    if not decode.keeps_alpha or output.background is None:
        return image
    return image.flatten(background=colour_in(image, output.background, own_profile=output.keep_profile))


def with_colour(image: pyvips.Image, output: OutputPlan) -> tuple[pyvips.Image, list[float]]:
    """Return an image in which the background's colour can be shown, and that colour as the
    values of its bands but alpha. A result that ``grey`` has made grey becomes RGB for a colour that is not.
    """
    colour = colour_in(image, output.options.background, own_profile=output.keep_profile)
    if len(set(colour)) > 1:
        image = grey_to_rgb(image)
    return image, colour[: 1 if image.interpretation == "b-w" else None]
