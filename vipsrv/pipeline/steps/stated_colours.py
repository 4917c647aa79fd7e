"""Resize an image whose file states its colours by numbers (CICP, a PNG's gamma), and make it sRGB.

It is reduced in its own colours, and with all of its bits, of which HDR needs more than eight. Converted is
the reduced image, and only then it is flattened, as a browser does.
"""

import pyvips

from vipsrv.pipeline.colour import conversion
from vipsrv.pipeline.colour.space import ColourSpace
from vipsrv.pipeline.icc_profile import colour_in
from vipsrv.pipeline.plan import DecodePlan
from vipsrv.pipeline.steps.colours import to_srgb
from vipsrv.pipeline.steps.fast_resize import rotate_upright
from vipsrv.pipeline.steps.scale import scale_to


def resize_stated(image: pyvips.Image, decode: DecodePlan, colours: ColourSpace) -> pyvips.Image:
    """Return the image in exactly the plan's size, upright, in 8-bit sRGB. Raises ``pyvips.Error``."""
    info = decode.header.info
    width, height = decode.stored_size
    image = scale_to(image, min(width, info.width), min(height, info.height))
    image = conversion.to_srgb(rotate_upright(image, decode.header), colours)
    if info.has_alpha and decode.background is not None:
        image = to_srgb(image, decode)
        image = image.flatten(background=colour_in(image, decode.background, own_profile=False))
    return scale_to(image, *decode.upright_size)
