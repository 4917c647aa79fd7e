"""Results that are pixels in memory instead of a file, for what the pipeline itself makes of an image."""

import pyvips

from vipsrv.options import Chroma, Fit, Format, ResizeOptions
from vipsrv.pipeline.formats.writer import EncodeCost, Writer
from vipsrv.pipeline.vips.operations import shape

BANDS = 4


def pixels_within(side: int, *, page: int = 0) -> ResizeOptions:
    """Return the options for an image of at most ``side`` pixels on a side."""
    return ResizeOptions(width=side, height=side, fit=Fit.INSIDE, enlarge=False, page=page)


def _pixels(image: pyvips.Image, _quality: int, _chroma: Chroma) -> bytes:
    if shape(image).bands != BANDS:
        image = image.addalpha()
    data: bytes = image.write_to_memory()
    return data


PIXELS = Writer(
    format=Format.PNG,  # which holds the same pixels
    saver="rawsave_buffer",
    lossy=True,  # so that ``save_plain`` is used
    lossless=False,
    alpha=True,
    cost=EncodeCost(pixel=BANDS, seconds=0.001),
    save_plain=_pixels,
)
"""Writes 8-bit sRGB with alpha, row after row."""
