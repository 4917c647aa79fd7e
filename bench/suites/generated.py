"""Images of any size, generated while they are sent: no file and no memory holds one of them whole.

A band of rows is drawn once as in ``bench.images``, and an image repeats it from top to bottom. The bytes are
those of a real image: a TIFF of uncompressed strips, in which a byte is a sample, and a baseline JPEG with
restart markers, in which a band is a number of entropy-coded segments that each decode by themselves.
"""

import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import pyvips

from bench.images import photo

BANDS = 3
_TILE = 512
"""Side of the drawn square that a band repeats, in pixels."""
_SEED, _TEXTURE, _GRAIN = 21, 6.0, 1.5
_UNIT = 16
"""Side of the unit that a JPEG of 4:2:0 is coded in, in pixels."""
_ROWS = 64
"""Rows that a TIFF repeats."""
_PIECE = 1 << 20
"""Bytes of a piece that is sent, about."""
_FRAME, _SCAN = 0xFFC0, 0xFFDA
"""Markers of a baseline JPEG: the header of the frame, and that of the scan, which the coded data follow."""


@dataclass(frozen=True, slots=True)
class Generated:
    """An image of ``size`` bytes: ``head``, then ``count`` parts that repeat ``parts``, then ``tail``."""

    width: int
    height: int
    head: bytes
    parts: Sequence[bytes]
    count: int
    tail: bytes = b""

    @property
    def size(self) -> int:
        """The size of the image in bytes."""
        rounds, rest = divmod(self.count, len(self.parts))
        body = rounds * sum(map(len, self.parts)) + sum(map(len, self.parts[:rest]))
        return len(self.head) + body + len(self.tail)

    @property
    def pixels(self) -> int:
        """The number of pixels."""
        return self.width * self.height

    def pieces(self) -> Iterator[bytes]:
        """The bytes in order, in pieces of about a megabyte or of a part, whichever is larger."""
        held, size = [self.head], len(self.head)
        for part in islice(cycle(self.parts), self.count):
            held.append(part)
            size += len(part)
            if size >= _PIECE:
                yield b"".join(held)
                held, size = [], 0
        yield b"".join([*held, self.tail])


def tiff(size: int) -> Generated:
    """A TIFF of uncompressed strips, of ``size`` bytes or a few rows more. The least has 16 × 16 pixels.

    Raises ``ValueError`` for one of 4 GiB or more, which TIFF cannot hold.
    """
    side = max(_UNIT, math.isqrt(size // BANDS))
    rows = max(1, _PIECE // (side * BANDS))  # of a strip
    strips = -(-side // rows)
    row = side * BANDS
    head = _tiff_head(side, side, rows, strips)
    if len(head) + side * row >= 1 << 32:
        raise ValueError(f"a TIFF of {size} bytes: its offsets have 32 bits")
    return Generated(side, side, head, _rows(side), side)


def jpeg(pixels: int) -> Generated:
    """A 4:2:0 baseline JPEG of quality 85 of about ``pixels`` pixels, 4 by 3.

    Raises ``ValueError`` for one with more than 65,535 pixels a side.
    """
    width = max(1, round(math.sqrt(pixels * 4 / 3) / _UNIT)) * _UNIT
    height = max(1, round(pixels / width / _UNIT)) * _UNIT
    if max(width, height) > 0xFFFF:
        raise ValueError(f"a JPEG of {width} × {height} pixels: a side has 16 bits")
    # libvips' saver writes the markers, one after each row of units.
    encoded = bytes(
        _band(width).jpegsave_buffer(Q=85, subsample_mode="on", restart_interval=width // _UNIT, keep="none")
    )
    frame, scan = _segment(encoded, _FRAME), _segment(encoded, _SCAN)
    (length,) = struct.unpack_from(">H", encoded, scan + 2)
    start = scan + 2 + length
    head = encoded[: frame + 5] + struct.pack(">H", height) + encoded[frame + 7 : start]
    # A marker in the entropy-coded data is FF and D0 to D7; a byte FF of the data itself is followed by 00.
    segments = re.split(rb"\xff[\xd0-\xd7]", encoded[start:-2])
    count = height // _UNIT
    marked = [
        segments[number % len(segments)] + bytes((0xFF, 0xD0 + number % 8))
        for number in range(math.lcm(len(segments), 8))
    ]
    # The last segment has no marker of its own: the image's end follows it.
    last = segments[(count - 1) % len(segments)]
    return Generated(width, height, head, marked, count - 1, last + b"\xff\xd9")


def _band(width: int) -> pyvips.Image:
    tile = photo(_TILE, _TILE, _SEED, _TEXTURE, _GRAIN).copy_memory()
    # Beside its mirror image, so that no seam shows.
    return (
        tile.join(tile.fliphor(), "horizontal")
        .replicate(-(-width // (2 * _TILE)), 1)
        .crop(0, 0, width, _TILE)
    )


def _rows(width: int) -> list[bytes]:
    data = memoryview(_band(width).crop(0, 0, width, _ROWS).write_to_memory())
    row = width * BANDS
    return [bytes(data[start : start + row]) for start in range(0, len(data), row)]


def _tiff_head(width: int, height: int, rows: int, strips: int) -> bytes:
    """The header and the one directory of a little-endian TIFF whose strips follow it without a gap."""
    short, long = 3, 4
    fields = 10
    after = 8 + 2 + fields * 12 + 4
    depth_at, offsets_at = after, after + 2 * BANDS
    counts_at = offsets_at + 4 * strips
    data_at = counts_at + 4 * strips
    strip = rows * width * BANDS
    sizes = [strip] * (strips - 1) + [height * width * BANDS - strip * (strips - 1)]
    one = strips == 1  # a single value stands in the field itself
    entries = (
        (256, long, 1, width),
        (257, long, 1, height),
        (258, short, BANDS, depth_at),
        (259, short, 1, 1),  # no compression
        (262, short, 1, 2),  # RGB
        (273, long, strips, data_at if one else offsets_at),
        (277, short, 1, BANDS),
        (278, long, 1, rows),
        (279, long, strips, sizes[0] if one else counts_at),
        (284, short, 1, 1),  # samples of a pixel side by side
    )
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    arrays = struct.pack(
        f"<{BANDS}H{2 * strips}I",
        *([8] * BANDS),
        *(min(data_at + number * strip, 0xFFFF_FFFF) for number in range(strips)),
        *sizes,
    )
    return struct.pack("<2sHIH", b"II", 42, 8, fields) + directory + bytes(4) + arrays


def _segment(encoded: bytes, wanted: int) -> int:
    """Where the marker segment ``wanted`` begins in the head of a JPEG."""
    at = 2
    while True:
        marker, length = struct.unpack_from(">HH", encoded, at)
        if marker == wanted:
            return at
        at += 2 + length
