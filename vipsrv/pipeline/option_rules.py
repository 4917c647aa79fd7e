"""Refuse options that contradict each other, instead of silently ignoring one of them.

``quality`` alone is accepted for every format: PNG, TIFF, GIF and lossless results ignore it. So are
``effort``, which TIFF ignores, ``optimize``, which is for JPEG alone, and ``progressive``, which is for JPEG,
PNG and GIF: what a viewer sees in the end is the same without them.
"""

from dataclasses import fields

from vipsrv.errors import BadRequest
from vipsrv.options import BY_CONTENT, Fit, Format, Position, ResizeOptions
from vipsrv.pipeline.formats.writer import Writer
from vipsrv.pipeline.output_format import (
    formats_keeping,
    formats_with_chroma,
    formats_with_quality,
    lossless_formats,
)
from vipsrv.pipeline.read_back import is_read_back

_DEFAULTS = {option.name: option.default for option in fields(ResizeOptions)}


def check_options(options: ResizeOptions, writer: Writer, frames: int) -> None:
    """Raise ``BadRequest`` with a message that begins with the option's name. ``writer`` is that of the
    result's format, and ``frames`` is how many frames the result has.
    """
    name = f"{writer.format}"
    if options.format is Format.AUTO:
        name += ", which 'auto' gives here,"
    if options.lossless and not writer.lossless:
        raise BadRequest(f"lossless: {name} cannot be lossless; {lossless_formats()}")
    if options.max_bytes is not None:
        _check_has_quality("max_bytes", options, writer, name)
    if options.min_ssim is not None:
        _check_has_quality("min_ssim", options, writer, name)
        if not is_read_back(writer.format):
            raise BadRequest(f"min_ssim: {name} cannot be decoded by this server, so its SSIM is not known")
        if frames > 1:
            raise BadRequest("min_ssim: is for a single image; leave out min_ssim or pages")
    if options.palette:
        _check_palette(options, writer, name)
    if options.chroma not in writer.chroma and not (options.lossless or options.format is Format.AUTO):
        raise BadRequest(f"chroma: {name} cannot be {options.chroma}; {formats_with_chroma(options.chroma)}")
    if options.keep not in writer.keeps and options.format is not Format.AUTO:
        raise BadRequest(
            f"keep: {name} holds no {options.keep.upper()} here; {formats_keeping(options.keep)}"
        )
    _check_placing(options)


def _check_has_quality(option: str, options: ResizeOptions, writer: Writer, name: str) -> None:
    if options.lossless:
        raise BadRequest(f"{option}: a lossless result has no quality to lower; leave one of the two out")
    if not writer.has_quality(options):
        raise BadRequest(f"{option}: {name} has no quality to lower; {formats_with_quality()}")


def _check_placing(options: ResizeOptions) -> None:
    if options.position is not Position.CENTRE:
        _check_position(options)
    if options.focus is not None:
        _check_focus(options)
    if options.watermark is None:
        _check_no_watermark(options)


def _check_focus(options: ResizeOptions) -> None:
    if options.fit is not Fit.COVER:
        raise BadRequest(f"focus: chooses what 'cover' keeps; the fit is '{options.fit}'")
    if options.position is not Position.CENTRE:
        raise BadRequest("focus: chooses what 'cover' keeps, as position does; leave one of the two out")


def _check_no_watermark(options: ResizeOptions) -> None:
    for name in ("watermark_position", "watermark_scale", "watermark_opacity"):
        if getattr(options, name) != _DEFAULTS[name]:
            raise BadRequest(f"{name}: there is no watermark; name one with 'watermark', or leave this out")


def is_by_content(options: ResizeOptions) -> bool:
    """Whether the image must be analysed to find the part that ``cover`` keeps."""
    return options.position in BY_CONTENT


def _check_palette(options: ResizeOptions, writer: Writer, name: str) -> None:
    if options.lossless:
        raise BadRequest("palette: a lossless result keeps all of its colours; leave one of the two out")
    if writer.palette is None and writer.format is not Format.GIF and options.format is not Format.AUTO:
        raise BadRequest(f"palette: {name} has no palette; choose one of: png, gif")


def _check_position(options: ResizeOptions) -> None:
    if options.fit not in {Fit.COVER, Fit.CONTAIN}:
        raise BadRequest(
            f"position: the fit '{options.fit}' leaves nothing to place; use 'cover' or 'contain'"
        )
    if is_by_content(options) and options.fit is Fit.CONTAIN:
        raise BadRequest(
            f"position: '{options.position}' chooses what 'cover' keeps; 'contain' keeps everything"
        )
