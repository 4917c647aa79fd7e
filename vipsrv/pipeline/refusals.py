"""Refuse an image that libvips cannot read, and say what is wrong with it."""

import re

import pyvips

from vipsrv.errors import CorruptImage, RequestError, UnsupportedFormat
from vipsrv.pipeline.formats.base import LibvipsReader
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.errors import reason, text_of

_BEYOND = re.compile(r"source: bad seek to (\d+)")
_NO_REASON = "unable to call "
"""How the text of pyvips begins if libvips gives none."""


def refusal(
    what: str, upload: Upload, error: pyvips.Error, *, reader: LibvipsReader | None = None
) -> RequestError:
    """Return the error for an image of which ``what`` is true, such as "this png cannot be decoded"."""
    message, text = reason(error), text_of(error)
    explained = None if reader is None else reader.explain(upload, text)
    if isinstance(explained, RequestError):
        return explained
    beyond = _BEYOND.match(message)
    if explained is None and beyond is not None:
        explained = f"it refers to byte {beyond[1]}, but ends after {upload.size}"
    if explained is None and message.startswith(_NO_REASON):
        explained = "libvips gives no reason"
    if reader is not None and any(part in text for part in reader.not_read):
        return UnsupportedFormat(f"{what}: {explained or message}")
    return CorruptImage(f"{what}: {explained or message}")
