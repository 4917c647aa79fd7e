"""The segments and scans of a JPEG file, read from its bytes, because libvips does not report them.

Parts that cannot be read count as nothing; libvips refuses such a file. Source: ITU-T T.81 (1992), annex B.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vipsrv.pipeline.upload import Upload

# SOF0 to SOF15 hold the dimensions, but DHT, JPG and DAC are numbered among them.
FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})
START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
SEGMENT_BYTES = 150
"""Bytes that libjpeg and libvips take for each segment of metadata besides its content."""

HEAD_COPIES = 2
"""Bytes of memory that libjpeg and libvips take per byte of metadata: 500 MB took 1 GB."""

_BLOCK_SIDE = 8
_BLOCK_BYTES = 128
"""Bytes of the 16-bit coefficients of an 8 × 8 block."""

_MARKER = re.compile(rb"\xff([^\0\xff\xd0-\xd7])")
"""A marker that cannot occur within coefficients: there 255 is followed by 0, or begins a restart marker."""

_READ_SIZE = 1 << 20
_FIRST_READ_SIZE = 16
"""Bytes of the first search for the next marker, which follows at once except after coefficients and fill
bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scans:
    """The number of scans of a JPEG, and the bytes of all segments (tables and metadata) after the first
    scan begins.
    """

    count: int
    segments: int


def size_of(upload: Upload) -> tuple[int, int, bool] | None:
    """Return width and height in pixels from the first frame header, and whether it is lossless; ``None`` if
    there is none.
    """
    marker, frame = _frame_header(upload)
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    return (width, height, marker in LOSSLESS) if width and height else None


def coefficient_bytes(upload: Upload) -> int:
    """Return the bytes that libjpeg holds for a JPEG of several scans: the coefficients of all components,
    padded to whole minimum coded units.
    """
    _, frame = _frame_header(upload)
    if len(frame) < 6:  # noqa: PLR2004 - precision, height, width, number of components
        return 0
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    count = frame[5]
    sampling = [(one >> 4, one & 15) for one in frame[7 : 6 + 3 * count : 3]]
    if not sampling:
        return 0
    across = -(-width // (_BLOCK_SIDE * max(1, *(one for one, _ in sampling))))
    down = -(-height // (_BLOCK_SIDE * max(1, *(one for _, one in sampling))))
    return across * down * _BLOCK_BYTES * sum(one * other for one, other in sampling)


def head_size(upload: Upload, limit: int) -> int:
    """Return the bytes before the first scan (if there are many, nearly all are metadata), and the overhead
    of each segment. Counting stops at ``limit`` + 1.
    """
    for number, (marker, position, _) in enumerate(markers(upload, limit)):
        size = position + number * SEGMENT_BYTES
        if marker in {START_OF_SCAN, _END_OF_IMAGE} or size > limit:
            break
    else:
        size = upload.size
    return min(size, limit + 1)


def count_scans(upload: Upload, limit: Scans) -> Scans:
    """Count the scans of a JPEG until one of the two numbers is above ``limit``."""
    count = segments = 0
    for marker, _, length in markers(upload, upload.size):
        count += marker == START_OF_SCAN
        if count:
            segments += length + SEGMENT_BYTES
        if marker == _END_OF_IMAGE or count > limit.count or segments > limit.segments:
            break
    return Scans(count=count, segments=segments)


def _frame_header(upload: Upload) -> tuple[int, bytes]:
    """The marker of the first frame header, and what follows its length; empty if a scan comes before it."""
    for marker, position, length in markers(upload, upload.size):
        if marker in FRAME_HEADERS:
            return marker, upload.read(position + 2, max(0, length - 2))
        if marker == START_OF_SCAN:
            break
    return 0, b""


def markers(upload: Upload, end: int) -> Iterator[tuple[int, int, int]]:
    """Each marker from the second on, the position after it, and the bytes of its segment from there on (0 if
    it has none). Everything else is skipped, as libjpeg does. The search ends at ``end``.
    """
    position, size = 2, _FIRST_READ_SIZE
    while position < end:
        piece = upload.read(position, size)
        found = _MARKER.search(piece)
        if found is None:
            if len(piece) < size:
                return
            position += size - 1
            size = _READ_SIZE
            continue
        position, size = position + found.end(), _FIRST_READ_SIZE
        marker = found[1][0]
        length = 0 if marker in _WITHOUT_LENGTH else max(2, int.from_bytes(upload.read(position, 2)))
        yield marker, position, length
        position += length
