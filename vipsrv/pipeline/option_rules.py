"""Refuse options that contradict each other, instead of silently ignoring one of them.

``quality`` alone is accepted for every format: PNG, TIFF, GIF and lossless results ignore it. ``effort`` is
accepted likewise: TIFF ignores it.
"""

from vipsrv.errors import BadRequest
from vipsrv.options import Fit, Format, Position, ResizeOptions
from vipsrv.pipeline.formats.base import Writer
from vipsrv.pipeline.output_format import formats_keeping, formats_with_quality, lossless_formats

_BY_CONTENT = {Position.ENTROPY, Position.ATTENTION}


def check_options(options: ResizeOptions, writer: Writer) -> None:
    """Raise ``BadRequest`` with a message that begins with the option's name. ``writer`` is that of the
    result's format.
    """
    name = f"{writer.format}"
    if options.format is Format.AUTO:
        name += ", which 'auto' gives here,"
    if options.lossless and not writer.lossless:
        raise BadRequest(f"lossless: {name} cannot be lossless; {lossless_formats()}")
    if options.max_bytes is not None and options.lossless:
        raise BadRequest("max_bytes: a lossless result has no quality to lower; leave one of the two out")
    if options.max_bytes is not None and not writer.lossy:
        raise BadRequest(f"max_bytes: {name} has no quality to lower; {formats_with_quality()}")
    if options.keep not in writer.keeps and options.format is not Format.AUTO:
        raise BadRequest(
            f"keep: {name} holds no {options.keep.upper()} here; {formats_keeping(options.keep)}"
        )
    if options.position is not Position.CENTRE:
        _check_position(options)
    if options.focus is not None:
        _check_focus(options)


def _check_focus(options: ResizeOptions) -> None:
    if options.fit is not Fit.COVER:
        raise BadRequest(f"focus: chooses what 'cover' keeps; the fit is '{options.fit}'")
    if options.position is not Position.CENTRE:
        raise BadRequest("focus: chooses what 'cover' keeps, as position does; leave one of the two out")


def is_by_content(options: ResizeOptions) -> bool:
    """Whether the image must be analysed to find the part that ``cover`` keeps."""
    return options.position in _BY_CONTENT


def _check_position(options: ResizeOptions) -> None:
    if options.fit not in {Fit.COVER, Fit.CONTAIN}:
        raise BadRequest(
            f"position: the fit '{options.fit}' leaves nothing to place; use 'cover' or 'contain'"
        )
    if is_by_content(options) and options.fit is Fit.CONTAIN:
        raise BadRequest(
            f"position: '{options.position}' chooses what 'cover' keeps; 'contain' keeps everything"
        )
