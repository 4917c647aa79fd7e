"""What a plain JPEG says of its image, without opening it with libvips, which takes longer than all the rest.

A file is plain if it has 8 bits, one or three components and no ICC profile, and its EXIF data, if there are
any, have the usual form. Any other is opened by libvips. libjpeg-turbo confirms the size, so the limits are
never checked against a size that the decoder does not confirm.

Sources: ITU-T T.81 (1992), annex B; EXIF 2.3, section 4.5 and 4.6 (TIFF 6.0, section 2).
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from vipsrv.pipeline import turbo
from vipsrv.pipeline.formats.base import ImageFacts
from vipsrv.pipeline.formats.jpeg.segments import FRAME_HEADERS, START_OF_SCAN, markers
from vipsrv.pipeline.turbo import codec
from vipsrv.pipeline.upload import Upload

MULTISCAN: Final = "jpeg-multiscan"
"""The field in which libvips says that the decoder holds all coefficients."""

_PROGRESSIVE = 0xC2
_PLAIN = frozenset({0xC0, 0xC1, _PROGRESSIVE})
"""Baseline, extended and progressive frames that are Huffman-coded."""

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


def has_plain_frame(upload: Upload, size: tuple[int, int]) -> bool:
    """Whether the JPEG has one frame, of 8 bits, coded by DCT and Huffman tables, of ``size``.

    libjpeg-turbo must not get any other: of a lossless frame (SOF3) it decodes all pixels even if it was
    asked for a fraction of them, and writes behind the memory for these.
    """
    try:
        return _plain_frame([frame for frame, _ in _head(upload) if frame is not None]).size == size
    except (_NotPlain, struct.error):
        return False


class _Frame(NamedTuple):
    marker: int
    precision: int
    height: int
    width: int
    components: int

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height


class _Segment(NamedTuple):
    marker: int
    start: int
    size: int


def _head(upload: Upload) -> Iterator[tuple[_Frame | None, _Segment]]:
    """Each segment up to the start of the first scan, and its frame if it is a frame's header.

    Raises ``_NotPlain`` if there are bytes between them, which libjpeg and this code might read differently,
    and ``struct.error``.
    """
    end = 2
    for marker, position, length in markers(upload, min(upload.size, _MAX_HEAD)):
        if position - 2 != end:
            raise _NotPlain
        end = position + length
        start, size = position + 2, length - 2
        frame = None
        if marker in FRAME_HEADERS:
            frame = _Frame(marker, *_FRAME.unpack(upload.read(start, min(size, _FRAME.size))))
        yield frame, _Segment(marker, start, size)
        if marker == START_OF_SCAN:
            return
    raise _NotPlain


def _plain_frame(frames: list[_Frame]) -> _Frame:
    if len(frames) != 1:
        raise _NotPlain
    (frame,) = frames
    is_plain = frame.marker in _PLAIN and frame.precision == _PRECISION
    if not is_plain or frame.components not in _COLOUR_SPACES:
        raise _NotPlain
    return frame


def _read(upload: Upload) -> ImageFacts:
    frames, exif = [], []
    for frame, (marker, start, size) in _head(upload):
        if frame is not None:
            frames.append(frame)
        elif marker == _APP1 and upload.read(start, len(_EXIF)) == _EXIF:
            exif.append(upload.read(start + len(_EXIF), size - len(_EXIF)))
        elif marker == _APP2 and upload.read(start, len(_ICC)) == _ICC:
            raise _NotPlain
    frame = _plain_frame(frames)
    if len(exif) > 1 or codec.size_of(upload.view()) != frame.size:
        raise _NotPlain
    (in_scan,) = struct.unpack("B", upload.read(start, 1))
    return ImageFacts(
        width=frame.width,
        height=frame.height,
        bands=frame.components,
        interpretation=_COLOUR_SPACES[frame.components],
        orientation=_orientation_in(exif[0]) if exif else 1,
        metadata_memory=_COPIES * start,
        fields={MULTISCAN: int(frame.marker == _PROGRESSIVE or in_scan < frame.components)},
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
