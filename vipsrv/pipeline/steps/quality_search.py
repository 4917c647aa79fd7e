"""Find the quality of a result: the highest that fits into some bytes, or the lowest that looks well enough.

Both halve the range of qualities that are left with each encode of an image in memory. That takes size and
SSIM to grow with the quality, which they do but for single steps; the result that is sent was measured
itself.
"""

from collections.abc import Callable

import pyvips

from vipsrv.errors import TooLarge
from vipsrv.options import HIGHEST_QUALITY
from vipsrv.pipeline.likeness import Likeness, pixels_of
from vipsrv.pipeline.plan import OutputPlan
from vipsrv.pipeline.read_back import luma_of, read_back
from vipsrv.pipeline.vips.stopping import StopCheck, stop_if_asked

Write = Callable[[int], bytes]
"""Encodes the image in a quality."""


def highest_quality(output: OutputPlan, write: Write, watch: StopCheck | None) -> tuple[bytes, int]:
    """Return the result of the highest quality, up to the planned one, that has at most ``max_bytes``.

    Raises ``TooLarge`` if none has, what ``write`` raises, and the reason of ``watch``.
    """
    max_bytes = output.options.max_bytes or 0
    data, best = write(output.quality), output.quality
    if len(data) <= max_bytes:
        return data, best
    found, fits, fails = b"", 0, best
    while fails - fits > 1:
        stop_if_asked(watch)
        quality = (fits + fails) // 2
        data = write(quality)
        if len(data) <= max_bytes:
            found, fits = data, quality
        else:
            fails = quality
    if not found:
        raise TooLarge(
            f"max_bytes: at quality 1 the {output.writer.format} still has {len(data)} bytes; "
            f"{max_bytes} are allowed"
        )
    return found, fits


def lowest_quality(
    image: pyvips.Image, output: OutputPlan, write: Write, watch: StopCheck | None
) -> tuple[bytes, int, float]:
    """Return the result of the lowest quality whose SSIM to ``image`` is at least ``min_ssim``, and its SSIM.

    ``quality``, or 100, is the highest that is tried. Raises ``TooLarge`` if that does not reach it, or if
    the result has more than ``max_bytes``; what ``write`` raises; and the reason of ``watch``.
    """
    options = output.options
    wanted = options.min_ssim or 0.0
    likeness = Likeness(pixels_of(image))
    highest = options.quality or HIGHEST_QUALITY
    found, ssim, reached = b"", 0.0, 0.0
    fails, reaches = 0, highest + 1
    while reaches - fails > 1:
        quality = (fails + reaches) // 2
        stop_if_asked(watch)
        data = write(quality)
        stop_if_asked(watch)
        reached = _likeness_of(data, likeness, output)
        if reached >= wanted:
            found, ssim, reaches = data, reached, quality
        else:
            fails = quality
    if not found:
        raise TooLarge(
            f"min_ssim: at quality {highest} the {output.writer.format} has an SSIM of {reached:.4f}; "
            f"{wanted} is wanted"
        )
    if options.max_bytes is not None and len(found) > options.max_bytes:
        raise TooLarge(
            f"max_bytes: at quality {reaches}, the lowest that reaches min_ssim, "
            f"the {output.writer.format} has {len(found)} bytes; {options.max_bytes} are allowed"
        )
    return found, reaches, ssim


def _likeness_of(data: bytes, likeness: Likeness, output: OutputPlan) -> float:
    format_ = output.writer.format
    luma = luma_of(data, format_)
    return likeness.of(read_back(data, format_)) if luma is None else likeness.of_luma(luma)
