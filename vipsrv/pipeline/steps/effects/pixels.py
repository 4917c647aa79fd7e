"""What several effects do: separate colours from alpha, weight them by it, put an image into memory."""

from collections.abc import Callable

import pyvips

from vipsrv.pipeline.plan import DecodePlan
from vipsrv.pipeline.vips.operations import shape
from vipsrv.pipeline.vips.stopping import stop_if_asked, stop_while_computing

OPAQUE = 255
_HALF = 0.5

_MIN_WATCHED = 2_000_000
"""Pixels: an effect on fewer is over before a request to stop would be noticed."""

RGB_BANDS = 3

_COLOURS = (1, RGB_BANDS)
"""Bands of an image without alpha: grey or RGB."""


def split(image: pyvips.Image) -> tuple[pyvips.Image, pyvips.Image | None]:
    """Return the colours, and the alpha if there is one."""
    bands = shape(image).bands
    if bands in _COLOURS:
        return image, None
    return image.extract_band(0, n=bands - 1), image.extract_band(bands - 1)


def join(colours: pyvips.Image, alpha: pyvips.Image | None) -> pyvips.Image:
    """Return the image of which these are the colours and the alpha."""
    return colours if alpha is None else colours.bandjoin(alpha)


def weighted(image: pyvips.Image, effect: Callable[[pyvips.Image], pyvips.Image]) -> pyvips.Image:
    """Apply an effect that mixes neighbouring pixels, each weighted by its alpha, so that the hidden colours
    of transparent pixels do not show.
    """
    if shape(image).bands in _COLOURS:
        return effect(image)
    # Integers at once, as in ``scale``: effects on floats take several times as long. The cast cuts off.
    premultiplied = (image.premultiply() + _HALF).cast("uchar")
    straight = (effect(premultiplied).unpremultiply() + _HALF).cast("uchar")
    return straight.copy(interpretation=image.interpretation)


def in_memory(image: pyvips.Image, decode: DecodePlan) -> pyvips.Image:
    """Compute the image, for an effect that reads each of its pixels more than once.

    Otherwise all steps before the effect would be done again for each strip of the result. Nothing is
    copied if the pixels are in memory. Raises ``pyvips.Error``, or the reason to stop.
    """
    stop_if_asked(decode.watch)
    width, height, *_ = shape(image)
    if decode.watch is not None and width * height >= _MIN_WATCHED:
        image = image.copy()
        stop_while_computing(image, decode.watch)
    return image.copy_memory()
