"""Step: rotate the upright, reduced image by an angle that is no multiple of 90 degrees.

It comes after the decoder and the reduction: for a photo of 12 megapixels and a result of 800 × 600 that is a
twentieth of the pixels. The image was reduced in its own proportions, and the rotation takes it to its exact
size; only where ``fill`` stretches it, it is resized once more.
"""

import math

import pyvips

from vipsrv.pipeline.icc_profile import colour_in
from vipsrv.pipeline.orientation import size_of_rotation
from vipsrv.pipeline.plan import DecodePlan
from vipsrv.pipeline.steps.scale import scale_to


def rotate(image: pyvips.Image, decode: DecodePlan) -> pyvips.Image:
    """Return the image in exactly the plan's size. What the rotation uncovers is transparent if the image has
    transparency, and has the background otherwise.
    """
    if not decode.header.angle:
        return image
    wanted = decode.width, decode.height
    return scale_to(_rotated(image, decode, size_of_rotation(decode.header.seen_size, wanted)), *wanted)


def _rotated(image: pyvips.Image, decode: DecodePlan, size: tuple[int, int]) -> pyvips.Image:
    """Return the image rotated within ``size``. The centre of one is the centre of the other."""
    own, seen = decode.header.info.upright_size, decode.header.seen_size
    turn = math.radians(decode.header.angle)
    cosine, sine = math.cos(turn), math.sin(turn)
    # From pixels of the reduced image to those of the view, rotated clockwise there, to those of the result.
    across, down = own[0] / image.width, own[1] / image.height
    right, below = size[0] / seen[0], size[1] / seen[1]
    matrix = [cosine * across * right, -sine * down * right, sine * across * below, cosine * down * below]
    middle = image.width / 2, image.height / 2
    if image.hasalpha():
        background = [0.0] * image.bands
    else:
        background = colour_in(image, decode.corners, own_profile=decode.keep_profile)
    return image.copy_memory().affine(
        matrix,
        interpolate=pyvips.Interpolate.new("bicubic"),
        # A pixel is at its centre, half a pixel from its corner.
        odx=size[0] / 2 - 0.5 - matrix[0] * (middle[0] - 0.5) - matrix[1] * (middle[1] - 0.5),
        ody=size[1] / 2 - 0.5 - matrix[2] * (middle[0] - 0.5) - matrix[3] * (middle[1] - 0.5),
        oarea=[0, 0, *size],
        extend="background",
        background=background,
    )
