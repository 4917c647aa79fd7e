"""What libvips decodes wrongly and without a word in TIFFs: told by some fields of its first directory.

Sources: TIFF revision 6.0 (1992), and for BigTIFF, whose offsets have 64 bits, libtiff's description of it.
"""

import struct

import pyvips

from vipsrv.errors import CorruptImage
from vipsrv.pipeline.upload import Upload

_COMPRESSION = 259
_PHOTOMETRIC = 262
_YCBCR = 6
_JPEGS = {6, 7, 34_712}  # the old way and the new one; JPEG 2000
_SHORT = 3
_BIG = 43
_MOST_ENTRIES = 1000


def check(upload: Upload, page: int = 0) -> None:
    """Refuse YCbCr that is not compressed as JPEG: libvips takes its numbers for RGB.

    Each ``page``, counted from 0, has a directory. Raises ``CorruptImage``; what cannot be read is left to
    libvips.
    """
    fields = _short_fields(upload, page)
    if fields.get(_PHOTOMETRIC) == _YCBCR and fields.get(_COMPRESSION, 1) not in _JPEGS:
        raise CorruptImage("this tiff holds YCbCr that is not compressed as JPEG, which is not decoded here")


def unsigned(image: pyvips.Image) -> pyvips.Image:
    """The picture with 8-bit numbers that say they are signed taken as they are: so are those that occur."""
    return image.copy(format="uchar")


def _short_fields(upload: Upload, page: int) -> dict[int, int]:
    """The fields of one number of 16 bits, by their tags."""
    head = upload.head(16)
    order = "<" if head.startswith(b"II") else ">"
    try:
        is_big = struct.unpack_from(f"{order}H", head, 2)[0] == _BIG
        word = struct.Struct(f"{order}{'Q' if is_big else 'I'}")
        entry = struct.Struct(f"{order}HH{'QH6x' if is_big else 'IH2x'}")
        number = struct.Struct(f"{order}{'Q' if is_big else 'H'}")
        start = word.unpack_from(head, word.size)[0]
        for _ in range(page):
            count = number.unpack(upload.read(start, number.size))[0]
            start = word.unpack(upload.read(start + number.size + count * entry.size, word.size))[0]
        count = number.unpack(upload.read(start, number.size))[0]
    except (struct.error, OSError):
        return {}  # it ends too early, or offsets are beyond what a file can have
    data = upload.read(start + number.size, min(count, _MOST_ENTRIES) * entry.size)
    entries = entry.iter_unpack(data[: len(data) // entry.size * entry.size])
    return {tag: value for tag, kind, amount, value in entries if kind == _SHORT and amount == 1}
