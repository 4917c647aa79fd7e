"""Decode a result again, to see what a viewer will see of it."""

import numpy as np
import pyvips
from numpy.typing import NDArray

from vipsrv.errors import InternalError
from vipsrv.options import Format
from vipsrv.pipeline import turbo
from vipsrv.pipeline.formats import registry
from vipsrv.pipeline.formats.base import LibvipsReader
from vipsrv.pipeline.likeness import pixels_of
from vipsrv.pipeline.turbo import codec
from vipsrv.pipeline.vips.errors import reason, unlogged


def is_read_back(format_: Format) -> bool:
    """Whether results of a format can be decoded: its reader is switched on."""
    return any(one.name == format_.value for one in registry.active_formats())


def luma_of(data: bytes, format_: Format) -> NDArray[np.uint8] | None:
    """Return the luma of a JPEG without decoding its colours; ``None`` if that is not possible.

    Raises ``InternalError``.
    """
    if format_ is not Format.JPEG or not turbo.AVAILABLE:
        return None
    try:
        return codec.decode_luma(data)
    except codec.NeedsLibvips as error:
        raise _unreadable(format_, f"{error}") from error


def read_back(data: bytes, format_: Format) -> NDArray[np.uint8]:
    """Return the pixels of the decoded result. Raises ``InternalError``."""
    reader = registry.format_named(format_.value).reader
    assert isinstance(reader, LibvipsReader), "formats that are written are read by libvips"  # noqa: S101
    # What libvips logs here, or raises, would be taken for an error of the upload's decoder: libheif seeks
    # beyond the end of a small AVIF, and reads it nevertheless.
    try:
        with unlogged():
            source = pyvips.Source.new_from_memory(data)
            return pixels_of(pyvips.Operation.call(reader.loader, source, access="sequential"))
    except pyvips.Error as error:
        raise _unreadable(format_, reason(error)) from error


def _unreadable(format_: Format, message: str) -> InternalError:
    return InternalError(f"the {format_} that was written could not be read again: {message}")
