"""Choose the format of a result among those that this libvips can write."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import pyvips

from vipsrv.errors import BadRequest
from vipsrv.options import Chroma, Format, ImageInfo, Keep
from vipsrv.pipeline.formats import registry
from vipsrv.pipeline.formats.writer import Writer
from vipsrv.pipeline.vips import setup

_writers: dict[Format, Writer] = {}
"""The writers that work, in the order of ``Format``."""


def try_writers() -> None:
    """Write a tiny image in every format, once in a process, to find out which formats can be written.

    Raises ``pyvips.Error`` if JPEG fails.
    """
    image = pyvips.Image.black(8, 8, bands=3).copy(interpretation="srgb")
    _writers.clear()
    for format_ in Format:
        writer = _all_writers().get(format_)
        if writer is None:
            continue
        if writer.untrusted_family is not None:
            setup.allow_saver(writer.untrusted_family)
        try:
            pyvips.Operation.call(writer.saver, image, **writer.options)
        except pyvips.Error:
            if format_ is Format.JPEG:
                raise
        else:
            _writers[format_] = _tried(writer, image)


def _tried(writer: Writer, image: pyvips.Image) -> Writer:
    """Return the writer, without its palette if this libvips cannot choose one."""
    if writer.palette is None:
        return writer
    try:
        pyvips.Operation.call(writer.saver, image, **writer.options, **writer.palette.options)
    except pyvips.Error:
        return replace(writer, palette=None)
    return writer


def written_formats() -> tuple[str, ...]:
    """Return the names of the formats that can be written, after ``try_writers``."""
    return tuple(format_.value for format_ in _writers)


def find_writer(asked: Format, source: ImageInfo, frames: int = 1) -> Writer:
    """Return the writer of the requested format. ``auto`` is the format of the source; if that cannot be
    written, PNG for an image with transparency and JPEG for one without, and WebP for several ``frames``.
    Raises ``BadRequest``.
    """
    if frames > 1:
        return _find_animator(asked, source, frames)
    if asked is Format.AUTO:
        same = _writers.get(Format(source.format)) if source.format in list(Format) else None
        instead = Format.PNG if source.has_alpha and Format.PNG in _writers else Format.JPEG
        return same or _writers[instead]
    writer = _writers.get(asked)
    if writer is None:
        raise BadRequest(f"format: {asked} cannot be written by this server's libvips; {_choose(_writers)}")
    return writer


def _find_animator(asked: Format, source: ImageInfo, frames: int) -> Writer:
    animators = {name: writer for name, writer in _writers.items() if writer.animation is not None}
    if asked is Format.AUTO:
        same = animators.get(Format(source.format)) if source.format in list(Format) else None
        found = same or animators.get(Format.WEBP) or animators.get(Format.GIF)
    else:
        found = animators.get(asked)
    if found is None:
        raise BadRequest(f"format: {asked} cannot hold the {frames} frames of 'pages'; {_choose(animators)}")
    return found


def likely_writer(asked: Format, source: ImageInfo, frames: int = 1) -> Writer:
    """Return the writer whose cost is that of ``asked``: for ``auto`` the format of the source, or PNG, which
    costs at least as much as the others that ``find_writer`` may choose. With ``frames`` it is the one that
    ``find_writer`` returns.
    """
    if frames > 1:
        return _find_animator(asked, source, frames)
    if asked is Format.AUTO:
        asked = Format(source.format) if source.format in list(Format) else Format.PNG
    return _all_writers()[asked]


def formats_with_quality() -> str:
    """Return a hint that names the formats whose quality can be lowered."""
    return _choose(name for name, writer in _writers.items() if writer.lossy) + ", or png with palette"


def formats_with_chroma(chroma: Chroma) -> str:
    """Return a hint that names the formats that can store colours like this."""
    return _choose(name for name, writer in _writers.items() if writer.lossy and chroma in writer.chroma)


def lossless_formats() -> str:
    """Return a hint that names the formats that can be lossless."""
    return _choose(name for name, writer in _writers.items() if writer.lossless)


def formats_keeping(keep: Keep) -> str:
    """Return a hint that names the formats that can hold this metadata."""
    return _choose(name for name, writer in _writers.items() if keep in writer.keeps)


@cache
def _all_writers() -> dict[Format, Writer]:
    writers = [format_.writer for format_ in registry.all_formats() if format_.writer is not None]
    return {writer.format: writer for writer in writers}


def _choose(formats: Iterable[Format]) -> str:
    return f"choose one of: {', '.join(formats)}"
