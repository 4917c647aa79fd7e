"""The last step: encode the image. libvips computes all steps before it only now."""

from typing import NamedTuple

import pyvips

from vipsrv.options import Keep
from vipsrv.pipeline.plan import OutputPlan
from vipsrv.pipeline.steps.quality_search import highest_quality, lowest_quality
from vipsrv.pipeline.vips.stopping import StopCheck

LOSSLESS_QUALITY = 100
"""The quality that is reported for a result that has none."""

_WITH_RESOLUTION = {Keep.ALL, Keep.EXIF}
"""What keeps the resolution of the source."""


class Encoded(NamedTuple):
    """The bytes of a result, its quality, and its SSIM where it was measured."""

    data: bytes
    quality: int
    ssim: float | None = None


def encode(image: pyvips.Image, output: OutputPlan, watch: StopCheck | None) -> Encoded:
    """Return the encoded result, with only the metadata that the options keep.

    Raises ``pyvips.Error``, ``TooLarge`` if it has no quality that fits ``max_bytes`` and ``min_ssim``, and
    the reason of ``watch``.
    """
    if output.lossless:
        return Encoded(_write(image, output, None), LOSSLESS_QUALITY)
    options = output.options
    if options.max_bytes is None and options.min_ssim is None:
        return Encoded(_write(image, output, output.quality), output.quality)
    # From here on the image is read more than once.
    image = image.copy_memory()

    def write(quality: int) -> bytes:
        return _write(image, output, quality)

    if options.min_ssim is not None:
        return Encoded(*lowest_quality(image, output, write, watch))
    return Encoded(*highest_quality(output, write, watch))


def _write(image: pyvips.Image, output: OutputPlan, quality: int | None) -> bytes:
    writer, options = output.writer, output.options
    is_plain = output.frames == 1 and writer.is_plain(options)
    if is_plain and quality is not None and writer.save_plain is not None:
        return writer.save_plain(image, quality, options.chroma)
    arguments = writer.arguments(options)
    if quality is not None:
        arguments["Q"] = quality
    if output.frames > 1:
        arguments |= writer.animation or {}
    data: bytes = pyvips.Operation.call(writer.saver, image, keep=options.keep.value, **arguments)
    if output.frames > 1 and writer.mark_transparent is not None and image.hasalpha():
        data = writer.mark_transparent(data)
    if writer.without_resolution is not None and options.keep not in _WITH_RESOLUTION:
        data = writer.without_resolution(data)
    return data
