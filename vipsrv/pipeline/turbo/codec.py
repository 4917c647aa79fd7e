"""Decode a JPEG at a fraction of its size, and encode one, by libjpeg-turbo.

Neither can be interrupted. Each takes a time in proportion to its pixels, so the caller bounds those.
"""

import numpy as np
from numpy.typing import NDArray

from vipsrv.errors import InternalError
from vipsrv.options import Chroma
from vipsrv.pipeline.turbo.packages import simplejpeg
from vipsrv.pipeline.turbo.pixels import Pixels
from vipsrv.pipeline.upload import Memory

_FULL_CHROMA = 90
"""From this quality on, ``auto`` stores colours at full resolution, as libvips does."""


def scaled_size(size: tuple[int, int], shrink: int) -> tuple[int, int]:
    """Return the size that libjpeg-turbo decodes an image of ``size`` to: a part of a pixel counts as one."""
    return -(-size[0] // shrink), -(-size[1] // shrink)


class NeedsLibvips(Exception):
    """libjpeg-turbo had a warning, such as for a truncated file, or an error: libvips decides about
    the image.
    """


def size_of(data: Memory) -> tuple[int, int] | None:
    """Return the width and height that libjpeg-turbo reads from the header; ``None`` if it cannot read it."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
    except (ValueError, KeyError):  # KeyError: simplejpeg 1.9 has no name for the subsampling 4:4:1
        return None
    return int(width), int(height)


def decode(data: Memory, size: tuple[int, int], shrink: int) -> Pixels:
    """Decode a JPEG of ``size`` at 1 / ``shrink`` (1, 2, 4, 8) to RGB.

    Raises ``NeedsLibvips``.
    """
    width, height = scaled_size(size, shrink)
    try:
        array = simplejpeg.decode_jpeg(data, "RGB", min_width=width, min_height=height)
    except ValueError as error:
        raise NeedsLibvips(str(error)) from error
    if array.shape[:2] != (height, width):
        # It chooses the smallest fraction with at least this size: libvips read another size of the image.
        raise NeedsLibvips(f"decoded to {array.shape[1]} x {array.shape[0]} instead of {width} x {height}")
    return Pixels(array)


def decode_luma(data: Memory) -> NDArray[np.uint8]:
    """Decode only the luma of a JPEG, at its full size. Raises ``NeedsLibvips``."""
    try:
        array: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "GRAY")[..., 0]
    except ValueError as error:
        raise NeedsLibvips(str(error)) from error
    return array


def encode(pixels: Pixels, quality: int, chroma: Chroma = Chroma.AUTO) -> bytes:
    """Encode as a baseline JPEG without metadata. Raises ``InternalError``."""
    is_full = quality >= _FULL_CHROMA if chroma is Chroma.AUTO else chroma is Chroma.FULL
    subsampling = "444" if is_full else "420"
    try:
        data: bytes = simplejpeg.encode_jpeg(pixels.array, quality, "RGB", subsampling, fastdct=False)
    except ValueError as error:
        raise InternalError(f"the result could not be written: {error}") from error
    return data
