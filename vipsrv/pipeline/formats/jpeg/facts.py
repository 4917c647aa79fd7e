"""What a plain JPEG says of its image, without opening it with libvips, which takes longer than all the rest.

A file is plain if it has 8 bits, one or three components and no ICC profile, and its EXIF data, if there are
any, have the usual form. Any other is opened by libvips. libjpeg-turbo confirms the size, so the limits are
never checked against a size that the decoder does not confirm.

Sources: ITU-T T.81 (1992), annex B; EXIF 2.3, section 4.5 and 4.6 (TIFF 6.0, section 2).
"""

import struct
from typing import Final

from vipsrv.pipeline import turbo
from vipsrv.pipeline.formats.base import ImageFacts
from vipsrv.pipeline.formats.jpeg.segments import START_OF_SCAN, markers
from vipsrv.pipeline.turbo import codec
from vipsrv.pipeline.upload import Upload

MULTISCAN: Final = "jpeg-multiscan"
"""The field in which libvips says that the decoder holds all coefficients."""

_PROGRESSIVE = 0xC2
_FRAMES = frozenset({0xC0, 0xC1, _PROGRESSIVE})
"""Baseline, extended and progressive frames that are Huffman-coded."""

_OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APP1, _APP2 = 0xE1, 0xE2
_EXIF, _ICC = b"Exif\0\0", b"ICC_PROFILE\0"
_FRAME = struct.Struct(">BHHB")  # precision, height, width, number of components
_PRECISION = 8  # bits
_COLOUR_SPACES = {1: "b-w", 3: "srgb"}
_MAX_HEAD = 1 << 20
"""Bytes before the pixels: with more, libvips opens the file, after its metadata have been checked."""

_COPIES = 2
"""Bytes of memory per byte of metadata, as for a file that libvips opens."""

_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION, _SHORT, _LAST_ORIENTATION = 0x0112, 3, 8


class _NotPlain(Exception):
    """libvips must open the file."""


def read_facts(upload: Upload) -> ImageFacts | None:
    """Read the facts of a plain JPEG; ``None`` for any other."""
    if not turbo.AVAILABLE:
        return None
    try:
        return _read(upload)
    except (_NotPlain, struct.error):
        return None


def _read(upload: Upload) -> ImageFacts:
    frames, exif = [], []
    for marker, position, length in markers(upload, min(upload.size, _MAX_HEAD)):
        start, size = position + 2, length - 2
        if marker in _FRAMES:
            frames.append((marker, *_FRAME.unpack(upload.read(start, min(size, _FRAME.size)))))
        elif marker == _APP1 and upload.read(start, len(_EXIF)) == _EXIF:
            exif.append(upload.read(start + len(_EXIF), size - len(_EXIF)))
        elif marker in _OTHER_FRAMES or (marker == _APP2 and upload.read(start, len(_ICC)) == _ICC):
            break
        elif marker == START_OF_SCAN:
            return _facts(upload, frames, exif, position)
    raise _NotPlain


def _facts(
    upload: Upload, frames: list[tuple[int, int, int, int, int]], exif: list[bytes], scan: int
) -> ImageFacts:
    if len(frames) != 1 or len(exif) > 1:
        raise _NotPlain
    marker, precision, height, width, components = frames[0]
    if precision != _PRECISION or components not in _COLOUR_SPACES:
        raise _NotPlain
    if codec.size_of(upload.view()) != (width, height):
        raise _NotPlain
    (in_scan,) = struct.unpack("B", upload.read(scan + 2, 1))
    return ImageFacts(
        width=width,
        height=height,
        bands=components,
        interpretation=_COLOUR_SPACES[components],
        orientation=_orientation_in(exif[0]) if exif else 1,
        metadata_memory=_COPIES * scan,
        fields={MULTISCAN: int(marker == _PROGRESSIVE or in_scan < components)},
    )


def _orientation_in(exif: bytes) -> int:
    """The orientation in EXIF data, 1 if they have none. Raises ``_NotPlain`` and ``struct.error``."""
    order = _BYTE_ORDERS.get(exif[:4])
    if order is None:
        raise _NotPlain
    (start,) = struct.unpack_from(order + "I", exif, 4)
    (count,) = struct.unpack_from(order + "H", exif, start)
    entries = [struct.unpack_from(order + "HHIH", exif, start + 2 + 12 * number) for number in range(count)]
    found = [entry for entry in entries if entry[0] == _ORIENTATION]
    if not found:
        return 1
    _, kind, values, orientation = found[0]
    if len(found) > 1 or (kind, values) != (_SHORT, 1) or not 1 <= orientation <= _LAST_ORIENTATION:
        raise _NotPlain
    return int(orientation)
