"""Decode a JPEG at a fraction of its size by libjpeg-turbo, and reduce it to its exact size.

This takes less time than ``fast_resize``, and the border is right for every size: libjpeg-turbo counts the
last column of the smaller image even if only a part of it belongs to the image, where libvips drops it. What
cannot be decoded in this way, or takes too much at once, is left to libvips.
"""

import numpy as np
from numpy.typing import NDArray

from vipsrv.pipeline import turbo
from vipsrv.pipeline.formats import jpeg
from vipsrv.pipeline.formats.jpeg.facts import has_plain_frame
from vipsrv.pipeline.formats.jpeg.shrink import MAX_EDGE, direct_shrink, thicker
from vipsrv.pipeline.header import Decoder, ImageHeader
from vipsrv.pipeline.orientation import Region
from vipsrv.pipeline.plan import DecodePlan
from vipsrv.pipeline.turbo import codec
from vipsrv.pipeline.turbo.pixels import Pixels
from vipsrv.pipeline.turbo.reduce import reduce_to
from vipsrv.pipeline.vips.stopping import stop_if_asked

_LEAST_ROWS = 0.4
"""Part of the rows down to the end of a region from which decoding all of them, in half of the time, pays."""

_MAX_ERROR = 8
"""Grey levels of the result, in the mean of its last column or row, that a border may be off by."""

_SAMPLES = 64
"""Pixels of the last column or row that are looked at."""


def decode_scaled(decode: DecodePlan, width: int, height: int) -> Pixels | None:
    """Return the image in ``width`` × ``height`` pixels, upright, in its own colours; ``None`` for an image
    of another kind, and for one that is too large.

    The size is the one that a viewer sees. Raises ``NeedsLibvips``, or the reason to stop, if there is one
    before or after the decode.
    """
    header, info = decode.header, decode.header.info
    if not (turbo.AVAILABLE and decode.direct) or not _is_plain(header):
        return None
    size, target = (header.source.info.width, header.source.info.height), info.swap_if_rotated(width, height)
    region = header.region or Region(0, 0, *size)
    if region.top + region.height < size[1] * _LEAST_ROWS:
        return None
    shrink = direct_shrink(size, target, region[2:])
    if shrink is None or not (header.is_plain_file or has_plain_frame(decode.upload, size)):
        return None
    left, top, across, down = region
    pixels, by = _decode(decode, shrink.first), shrink.first
    if shrink.bordered < by and _has_border(pixels, size, by, (target[0] / across, target[1] / down)):
        pixels, by = _decode(decode, shrink.bordered), shrink.bordered
    box = left / by, top / by, across / by, down / by
    return reduce_to(pixels, box, *target).upright(info.orientation)


def _has_border(pixels: Pixels, size: tuple[int, int], shrink: int, scales: tuple[float, float]) -> bool:
    """Whether the last column or row of ``pixels``, which are an image of ``size`` at 1 / ``shrink``, differs
    so much from the one before that a border would visibly become thicker.
    """
    rows = pixels.array
    for lines, side, scale in ((rows.swapaxes(0, 1), size[0], scales[0]), (rows, size[1], scales[1])):
        error = thicker(side, shrink) * scale
        # A side whose last pixel is not exact has several: see ``direct_shrink``.
        if error > MAX_EDGE and error * _contrast(lines, side, shrink) > _MAX_ERROR:
            return True
    return False


def _contrast(lines: NDArray[np.uint8], side: int, shrink: int) -> float:
    """Return the mean contrast that a border of one pixel at the end of ``side`` has, if it is what makes the
    last of the ``lines`` (columns or rows of the smaller decode) differ from the one before.
    """
    step = -(-lines.shape[1] // _SAMPLES)
    difference = np.subtract(lines[-1, ::step], lines[-2, ::step], dtype=np.int16)
    # So many columns have its colour, with the copies that the encoder added.
    columns = 1 + -side % shrink
    return int(np.abs(difference).sum()) / difference.size * shrink / columns


def _decode(decode: DecodePlan, shrink: int) -> Pixels:
    info = decode.header.source.info
    stop_if_asked(decode.watch)
    pixels = codec.decode(decode.upload.view(), (info.width, info.height), shrink)
    stop_if_asked(decode.watch)
    return pixels


def _is_plain(header: ImageHeader) -> bool:
    """Whether the image is RGB, or grey without a profile."""
    if header.decoder is not Decoder.LIBVIPS or header.info.format != jpeg.JPEG.name:
        return False
    kind = header.shape[2:]
    return kind == (3, "uchar", "srgb") or (kind == (1, "uchar", "b-w") and not header.has_profile)
