"""Step: blur with a Gaussian.

libvips' own ``gaussblur`` cuts the Gaussian off where it still has a fifth of its height, and rounds it to
steps of a twentieth: a sigma of 0.5 changes nothing. Here the mask goes to 2.5 sigma, in steps of 1/127, in
the same time, because SIMD instructions do most of the work. The time grows with sigma, so beyond
``_LARGEST_MASK`` the image is reduced first, blurred by less, and enlarged again; a blurred image has no
detail that would be lost.
"""

import math
from itertools import accumulate, pairwise

import pyvips

from vipsrv.pipeline.plan import DecodePlan, OutputPlan
from vipsrv.pipeline.steps.effects.pixels import in_memory, weighted
from vipsrv.pipeline.steps.scale import enlarge_by
from vipsrv.pipeline.vips.operations import shape

_LARGEST_MASK = 24.0
"""Pixels of sigma: from here on it is faster to reduce the image."""

_REDUCED_SIGMA = 12
"""Pixels of sigma within the reduced image: so much that linear interpolation of it is not seen, and that the
border, which is repeated beyond the image, is a narrow one."""

_LARGEST_WEIGHT = 64
"""The most that the middle of a mask has in libvips' SIMD code."""

_REACH = 2.5
"""The mask ends at so many sigmas, where the Gaussian has 4 % of its height."""


def blur(image: pyvips.Image, output: OutputPlan, decode: DecodePlan) -> pyvips.Image:
    """Return the image blurred by ``sigma`` pixels."""
    sigma = output.options.blur
    if sigma is None:
        return image
    return weighted(in_memory(image, decode), lambda pixels: gaussian(pixels, sigma))


def gaussian(image: pyvips.Image, sigma: float) -> pyvips.Image:
    """Return an 8-bit image blurred by ``sigma`` pixels, all bands alike."""
    if sigma < _LARGEST_MASK:
        return image.convsep(_mask(sigma), precision="integer")
    factor = int(sigma / _REDUCED_SIGMA)
    # The average of the reduction and the interpolation of the enlargement blur as well: their variances add
    # up with that of the mask.
    variance = sigma**2 - (factor**2 - 1) / 12 - factor**2 / 6
    reduced = image.shrink(factor, factor, ceil=True)
    blurred = reduced.convsep(_mask(math.sqrt(variance) / factor), precision="integer")
    width, height, *_ = shape(image)
    enlarged = enlarge_by(blurred, factor, factor, (width, height), "bilinear")
    return enlarged.copy(interpretation=image.interpretation)


def _mask(sigma: float) -> pyvips.Image:
    """Return the weights as whole numbers, whose sum is a power of two: libvips rounds others, and the image
    would become darker or lighter by up to two levels.
    """
    reach = math.ceil(_REACH * sigma)
    weights = [math.exp(-(place**2) / (2 * sigma**2)) for place in range(reach, -1, -1)]
    whole = 2 * sum(weights) - weights[-1]
    total = 2 ** (_LARGEST_WEIGHT.bit_length() - 1 - math.ceil(math.log2(weights[-1] / whole)))
    while True:
        # Rounded sums instead of rounded weights, so that the errors do not add up.
        sums = [round(total * one / whole) for one in accumulate(weights[:-1])]
        side = [one - before for before, one in pairwise([0, *sums])]
        middle = total - 2 * sums[-1]
        if middle <= _LARGEST_WEIGHT:
            return pyvips.Image.new_from_array([[*side, middle, *reversed(side)]], scale=total)
        total //= 2
