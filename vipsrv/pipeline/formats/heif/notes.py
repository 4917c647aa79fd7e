"""What an AVIF or HEIC states beside its pixels and libvips does not apply: colours, premultiplied alpha.

An ICC profile is preferred to the numbers of CICP, which libheif uses in any case to make RGB of YCbCr.
Where there is neither, the stream of an AVIF states the numbers. Source: ISO/IEC 23000-22 (MIAF), section 7.
"""

import struct
from dataclasses import replace

import pyvips

from vipsrv.pipeline.colour.space import SRGB, ColourSpace, from_cicp
from vipsrv.pipeline.formats.heif.av1 import StreamColours, stream_colours
from vipsrv.pipeline.formats.heif.items import Shown, shown_image
from vipsrv.pipeline.formats.heif.sequence import read_film
from vipsrv.pipeline.notes import FileNotes
from vipsrv.pipeline.upload import Upload

_PROFILES = (b"prof", b"rICC")
_NUMBERS = b"nclx"
_NUMBERS_LAYOUT = struct.Struct(">4x3HB")
"""Primaries, transfer, matrix; the first bit of the last byte says that the range is full."""

_FULL = 0x80
_CONFIGURATION_HEAD = 4
"""Bytes of ``av1C`` before the headers that it may hold."""

_STREAM_HEAD = 256
"""Bytes of the stream within which its header ends."""


def read_notes(upload: Upload) -> FileNotes:
    """Return what libvips does not read or apply. Raises ``TooLarge`` for too many frames."""
    shown = shown_image(upload)
    film = read_film(upload, has_still=shown is not None)
    if shown is None and film is not None:
        # A film only: its first frame is what is shown.
        shown = shown_image(Upload.from_memory(film.file(0)))
    if shown is None:
        return FileNotes(film=film)
    return FileNotes(
        colours=_colours(upload, shown),
        correct=_unpremultiply if shown.is_premultiplied else None,
        film=film,
    )


def _colours(upload: Upload, shown: Shown) -> ColourSpace | None:
    kinds = [content[:4] for content in shown.colours]
    if any(kind in _PROFILES for kind in kinds):
        return None
    numbers = _numbers(upload, shown, kinds)
    if numbers is None:
        return None
    # libheif 1.21 widens the range of YCbCr only.
    is_narrow = numbers.is_narrow and shown.is_monochrome
    found = from_cicp(numbers.primaries, numbers.transfer, is_narrow=is_narrow)
    if found is None and is_narrow:
        found = replace(SRGB, is_narrow=True)
    return None if found is None or found.is_srgb else found


def _numbers(upload: Upload, shown: Shown, kinds: list[bytes]) -> StreamColours | None:
    if _NUMBERS in kinds:
        content = shown.colours[kinds.index(_NUMBERS)]
        if len(content) < _NUMBERS_LAYOUT.size:
            return None
        primaries, transfer, _, flags = _NUMBERS_LAYOUT.unpack_from(content)
        return StreamColours(primaries=primaries, transfer=transfer, is_narrow=not flags & _FULL)
    if not shown.configuration:
        return None
    found = stream_colours(shown.configuration[_CONFIGURATION_HEAD:])
    if found is None and shown.data is not None:
        found = stream_colours(upload.read(shown.data, _STREAM_HEAD))
    return found


def _unpremultiply(image: pyvips.Image) -> pyvips.Image:
    if not image.hasalpha():
        return image
    return image.unpremultiply().rint().cast(image.format)
