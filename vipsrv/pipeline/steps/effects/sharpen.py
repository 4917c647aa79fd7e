"""Step: sharpen.

``true`` is for thumbnails: a mask of 3 × 3 pixels that raises the finest detail by half and detail of twice
its size by a quarter, which makes up for what reduction and JPEG take. A number is the sigma of an unsharp
mask: the difference between the image and a blurred copy is added to it.

Alpha stays as it is, and colours are compared only with neighbours that are seen.
"""

import pyvips

from vipsrv.pipeline.plan import DecodePlan, OutputPlan
from vipsrv.pipeline.steps.effects.blur import gaussian
from vipsrv.pipeline.steps.effects.pixels import in_memory, join, split, weighted

_THUMBNAIL = [[-1, -2, -1], [-2, 44, -2], [-1, -2, -1]]
"""The image, and half of its difference to a blur by the weights 1, 2, 1. The sum is a power of two, for
which libvips has SIMD code: half of the time of sharp's similar mask, whose sum is 24."""


def sharpen(image: pyvips.Image, output: OutputPlan, decode: DecodePlan) -> pyvips.Image:
    """Return the image sharpened."""
    asked = output.options.sharpen
    if asked is False:
        return image
    image = in_memory(image, decode)
    colours, alpha = split(image)
    if asked is True and alpha is None:
        mask = pyvips.Image.new_from_array(_THUMBNAIL, scale=sum(map(sum, _THUMBNAIL)))
        return image.conv(mask, precision="integer")
    sigma, amount = (_THUMBNAIL_SIGMA, _THUMBNAIL_AMOUNT) if asked is True else (float(asked), 1.0)
    blurred, _ = split(weighted(image, lambda pixels: gaussian(pixels, sigma)))
    sharp = colours.linear(1 + amount, 0.5) - blurred.linear(amount, 0)  # the cast cuts off
    return join(sharp.cast("uchar").copy(interpretation=image.interpretation), alpha)


_THUMBNAIL_SIGMA, _THUMBNAIL_AMOUNT = 0.72, 0.5
"""The unsharp mask that does nearly the same as ``_THUMBNAIL``: a Gaussian with the weights 0.38, 1, 0.38."""
