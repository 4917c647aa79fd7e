"""Options that exclude each other are refused by name, and never silently passed over.

``quality`` alone is taken as "where it has a meaning": PNG, TIFF, GIF and lossless results have none.
"""

from vipsrv.errors import BadRequest
from vipsrv.options import Fit, Format, Position, ResizeOptions
from vipsrv.pipeline import writers
from vipsrv.pipeline.writers import Writer

_BY_CONTENT = {Position.ENTROPY, Position.ATTENTION}


def check_mix(options: ResizeOptions, writer: Writer) -> None:
    """Raises ``BadRequest``, whose message begins with the option's name; ``writer`` is of the format that
    the result has.
    """
    name = f"{writer.format}"
    if options.format is Format.AUTO:
        name += ", which 'auto' gives here,"
    if options.lossless and not writer.lossless:
        raise BadRequest(f"lossless: {name} cannot be lossless; {writers.without_loss()}")
    if options.max_bytes is not None and options.lossless:
        raise BadRequest("max_bytes: a lossless result has no quality to lower; leave one of the two out")
    if options.max_bytes is not None and not writer.lossy:
        raise BadRequest(f"max_bytes: {name} has no quality to lower; {writers.with_quality()}")
    if options.keep not in writer.keeps and options.format is not Format.AUTO:
        raise BadRequest(
            f"keep: {name} holds no {options.keep.upper()} here; {writers.keeping(options.keep)}"
        )
    if options.position is not Position.CENTRE:
        _check_position(options)


def by_content(options: ResizeOptions) -> bool:
    """Whether what is kept is found by looking at the picture."""
    return options.position in _BY_CONTENT


def _check_position(options: ResizeOptions) -> None:
    if options.fit not in {Fit.COVER, Fit.CONTAIN}:
        raise BadRequest(
            f"position: the fit '{options.fit}' leaves nothing to place; use 'cover' or 'contain'"
        )
    if by_content(options) and options.fit is Fit.CONTAIN:
        raise BadRequest(
            f"position: '{options.position}' chooses what 'cover' keeps; 'contain' keeps everything"
        )
