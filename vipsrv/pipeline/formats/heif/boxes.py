"""The boxes of ISO base media files: the frame in which HEIF and AVIF store everything.

Source: ISO/IEC 14496-12.
"""

import struct
from collections.abc import Iterator

from vipsrv.pipeline.upload import Upload

VERSION_AND_FLAGS = 4
"""Bytes at the beginning of a full box."""

_LARGE, _TO_THE_END = 1, 0
_MAX_BOXES = 10_000
_HEAD = 16


def find_top(upload: Upload, *wanted: bytes) -> tuple[bytes, int, int] | None:
    """Return name, start and size of the content of the first box of the file that has one of these names;
    ``None`` if there is none within the first 10,000. Raises ``struct.error``.
    """
    position = 0
    for _ in range(_MAX_BOXES):
        head = upload.read(position, _HEAD)
        if not head:
            return None
        size, name = struct.unpack_from(">I4s", head)
        start = 8
        if size == _LARGE:
            (size,), start = struct.unpack_from(">Q", head, 8), _HEAD
        elif size == _TO_THE_END:
            size = upload.size - position
        if size < start:
            return None
        if name in wanted:
            return name, position + start, size - start
        position += size
    return None


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The name and content of each box. Raises ``struct.error``."""
    position = 0
    while position < len(data):
        size, name = struct.unpack_from(">I4s", data, position)
        start = 8
        if size == _LARGE:
            (size,), start = struct.unpack_from(">Q", data, position + 8), _HEAD
        elif size == _TO_THE_END:
            size = len(data) - position
        if size < start:
            raise struct.error("a box shorter than its head")
        yield name, data[position + start : position + size]
        position += size


def box(name: bytes, *contents: bytes) -> bytes:
    """Return a box."""
    content = b"".join(contents)
    return struct.pack(">I4s", 8 + len(content), name) + content
