"""What a PNG states in its chunks and libvips does not tell: the colours, and EXIF data behind the pixels.

Of the chunks for colours the first of these counts: cICP, iCCP, sRGB, gAMA with cHRM (PNG, Third Edition,
W3C, table 13). A chunk with a wrong checksum or length, or with impossible values, counts as missing.
"""

import struct
import zlib
from functools import partial

import pyvips

from vipsrv.pipeline.colour.primaries import Primaries
from vipsrv.pipeline.colour.space import SRGB, ColourSpace, from_cicp, from_gamma
from vipsrv.pipeline.exif import PREFIX, orientation_in
from vipsrv.pipeline.notes import NOTHING, FileNotes
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.fields import EXIF, ORIENTATION

_MAGIC_LENGTH = 8
_CHUNK_HEAD = struct.Struct(">I4s")
_CHECK = 4
_MAX_CHUNKS = 10_000
"""Chunks that are looked at: 3 ms. An encoder makes one of pixels for each 8 KB or more."""

_LENGTHS = {b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}
_MAX_EXIF = 1 << 20
"""Bytes: libvips' own limit is higher, but a JPEG can hold 64 KB."""

_RGB_MATRIX = 0
_PER_UNIT = 100_000
"""Gamma and chromaticities are stored as whole numbers of hundred-thousandths."""


def read_notes(upload: Upload) -> FileNotes:
    """Return the colours, if they are stated by numbers, and the EXIF data behind the pixels."""
    small: dict[bytes, bytes] = {}
    has_profile = has_exif = has_pixels = False
    exif = b""
    position = _MAGIC_LENGTH
    for _ in range(_MAX_CHUNKS):
        head = upload.read(position, _CHUNK_HEAD.size)
        if len(head) < _CHUNK_HEAD.size:
            break
        length, name = _CHUNK_HEAD.unpack(head)
        if name == b"IDAT":
            has_pixels = True
        elif name == b"IEND":
            break
        elif name == b"eXIf":
            if has_pixels and not has_exif and length <= _MAX_EXIF:
                exif = _content(upload, position, name, length)
            has_exif = True
        elif not has_pixels:
            if name == b"iCCP":
                has_profile = True
            elif _LENGTHS.get(name) == length and name not in small:
                small[name] = _content(upload, position, name, length)
        position += 12 + length
    colours = _colours(small, has_profile=has_profile) if small else None
    correct = partial(_add_exif, data=exif) if exif else None
    return NOTHING if colours is None and correct is None else FileNotes(colours=colours, correct=correct)


def _content(upload: Upload, position: int, name: bytes, length: int) -> bytes:
    """The content of a chunk, empty if its checksum is wrong."""
    data = upload.read(position + _CHUNK_HEAD.size, length + _CHECK)
    content = data[:length]
    return content if zlib.crc32(content, zlib.crc32(name)) == int.from_bytes(data[length:]) else b""


def _colours(chunks: dict[bytes, bytes], *, has_profile: bool) -> ColourSpace | None:
    if chunks.get(b"cICP"):
        primaries, transfer, matrix, is_full = chunks[b"cICP"]
        found = None
        if matrix == _RGB_MATRIX and is_full in (0, 1):
            found = from_cicp(primaries, transfer, is_narrow=not is_full)
        if found is not None:
            # sRGB has to be told only where a profile would be used otherwise.
            return None if found.is_srgb and not has_profile else found
    if has_profile or chunks.get(b"sRGB"):
        return None
    gamma = chromaticities = None
    if chunks.get(b"gAMA"):
        gamma = int.from_bytes(chunks[b"gAMA"]) / _PER_UNIT
    if chunks.get(b"cHRM"):
        white, red, green, blue = _pairs(chunks[b"cHRM"])
        chromaticities = Primaries(red, green, blue, white)
    found = from_gamma(gamma, chromaticities)
    return None if found == SRGB else found


def _pairs(content: bytes) -> list[tuple[float, float]]:
    return [(x / _PER_UNIT, y / _PER_UNIT) for x, y in struct.iter_unpack(">2i", content)]


def _add_exif(image: pyvips.Image, *, data: bytes) -> pyvips.Image:
    """Return the image with the EXIF data that libvips did not read."""
    image = image.copy()
    image.set_type(pyvips.GValue.blob_type, EXIF, PREFIX + data)
    image.set_type(pyvips.GValue.gint_type, ORIENTATION, orientation_in(data))
    return image
