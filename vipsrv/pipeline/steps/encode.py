"""The last step: encode the image. libvips computes all steps before it only now."""

import pyvips

from vipsrv.errors import TooLarge
from vipsrv.options import Keep
from vipsrv.pipeline.plan import OutputPlan
from vipsrv.pipeline.vips.stopping import StopCheck, stop_if_asked

LOSSLESS_QUALITY = 100
"""The quality that is reported for a result that has none."""


def encode(image: pyvips.Image, output: OutputPlan, watch: StopCheck | None) -> tuple[bytes, int]:
    """Return the encoded result, with only the metadata that the options keep, and its quality.

    Raises ``pyvips.Error``, ``TooLarge`` if it does not fit into ``max_bytes``, and the reason of ``watch``.
    """
    if output.lossless:
        return _write(image, output, None), LOSSLESS_QUALITY
    if output.options.max_bytes is None:
        return _write(image, output, output.quality), output.quality
    return _write_within(image.copy_memory(), output, output.options.max_bytes, watch)


def _write_within(
    image: pyvips.Image, output: OutputPlan, max_bytes: int, watch: StopCheck | None
) -> tuple[bytes, int]:
    """Find the highest quality, up to the planned one, whose result has at most ``max_bytes``: by bisection,
    with up to eight encodes of an image in memory.
    """
    data, best = _write(image, output, output.quality), output.quality
    if len(data) <= max_bytes:
        return data, best
    found, fits, fails = b"", 0, best
    while fails - fits > 1:
        stop_if_asked(watch)
        quality = (fits + fails) // 2
        data = _write(image, output, quality)
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


def _write(image: pyvips.Image, output: OutputPlan, quality: int | None) -> bytes:
    writer, options = output.writer, output.options
    is_plain = options.keep is Keep.NONE and writer.is_own(options.effort) and output.frames == 1
    if is_plain and quality is not None and writer.save_plain is not None:
        return writer.save_plain(image, quality)
    arguments = writer.arguments(lossless=options.lossless, effort=options.effort)
    if quality is not None:
        arguments["Q"] = quality
    if output.frames > 1:
        arguments |= writer.animation or {}
    data: bytes = pyvips.Operation.call(writer.saver, image, keep=options.keep.value, **arguments)
    if output.frames > 1 and writer.mark_transparent is not None and image.hasalpha():
        data = writer.mark_transparent(data)
    return data
