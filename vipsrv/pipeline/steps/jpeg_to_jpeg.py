"""Resize a JPEG to a plain JPEG without libvips: what most requests ask for."""

from vipsrv.options import Format
from vipsrv.pipeline import turbo
from vipsrv.pipeline.plan import DecodePlan, OutputPlan
from vipsrv.pipeline.steps.colours import needs_transform
from vipsrv.pipeline.steps.scaled_jpeg import decode_scaled
from vipsrv.pipeline.turbo import codec


def resize_jpeg(decode: DecodePlan, plan: OutputPlan) -> bytes | None:
    """Return the result; ``None`` if it needs a step of libvips.

    Raises what ``decode_scaled`` raises, and ``InternalError`` if the result cannot be encoded.
    """
    geometry, options = plan.geometry, plan.options
    is_plain = (
        turbo.AVAILABLE
        and plan.writer.format is Format.JPEG
        and options.max_bytes is None
        and options.min_ssim is None
        and not options.has_effects
        and plan.writer.is_plain(options)
        and (geometry.width, geometry.height) == geometry.scaled
        and not decode.header.angle
        and not (decode.header.has_profile and needs_transform(decode.header.image))
    )
    if not is_plain:
        return None
    pixels = decode_scaled(decode, geometry.width, geometry.height)
    return None if pixels is None else codec.encode(pixels, plan.quality, options.chroma)
