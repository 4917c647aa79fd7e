"""Draw the image of ``vipsrv demo``: a large uncompressed TIFF, row by row, as fast as the disk writes.

The pixels are zone plates (rings whose phase grows with the square of the distance), one for each colour.
Because x² and y² add up, each row is the first row's phases plus a constant, which ``bytes.translate``
computes at the speed of C.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path

BANDS = 3
STRIP_BYTES = 256 * 1024
MAX_PIXEL_BYTES = 2**32 - 2**20
"""Offsets in a TIFF have 32 bits, and the tables in front of the pixels take less than 1 MiB."""

_SHORT, _LONG, _RATIONAL = 3, 4, 5

_PLATES = (
    (0.30, 0.38, 30.0, 175, 45),
    (0.62, 0.55, 12.0, 150, 60),
    (0.45, 0.20, 1.2, 150, 95),
)
"""For red, green and blue: the centre as fractions of width and height; the number of rings within one longer
side of it; the mean of the colour in grey levels, and its amplitude.
"""


def tiff_size(width: int, height: int) -> int:
    """Return the size in bytes of the file of ``write_tiff``. Raises ``ValueError`` if it is too large."""
    pixels = width * height * BANDS
    if pixels > MAX_PIXEL_BYTES:
        raise ValueError(
            f"{width} x {height} pixels take {pixels} bytes, and a TIFF holds at most {MAX_PIXEL_BYTES}"
        )
    return len(tiff_head(width, height)) + pixels


def write_tiff(path: Path, width: int, height: int) -> None:
    """Draw an 8-bit RGB image of ``width`` × ``height`` pixels. Raises ``OSError`` and ``ValueError``."""
    tiff_size(width, height)
    with path.open("wb", buffering=STRIP_BYTES) as file:
        file.write(tiff_head(width, height))
        for row in rows(width, height):
            file.write(row)


def rows(width: int, height: int) -> Iterator[bytearray]:
    """Yield the pixels of each row from the top, in one array that is overwritten by the next row."""
    side = max(width, height)
    waves, across, down = [], [], []
    for x, y, rings, middle, swing in _PLATES:
        levels = (middle + swing * math.cos(2 * math.pi * phase / 256) for phase in range(256))
        waves.append(bytes(map(round, levels)) * 2)
        across.append(_phases(width, x * width, side, rings))
        down.append(_phases(height, y * height, side, rings))
    row = bytearray(width * BANDS)
    for y in range(height):
        for band in range(BANDS):
            phase = down[band][y]
            row[band::BANDS] = across[band].translate(waves[band][phase : phase + 256])
        yield row


def _phases(length: int, centre: float, side: int, rings: float) -> bytes:
    """Return the phases along one axis; 256 are one period."""
    scale = 256 * rings / side**2
    return bytes(int(scale * (position - centre) ** 2) & 255 for position in range(length))


def tiff_head(width: int, height: int) -> bytes:
    """Return the file up to its pixels: header, directory (TIFF 6.0, sections 2 and 6), strip offsets."""
    row = width * BANDS
    rows_per_strip = max(1, STRIP_BYTES // row)
    strips = -(-height // rows_per_strip)
    full, last = rows_per_strip * row, (height - (strips - 1) * rows_per_strip) * row
    sizes = [full] * (strips - 1) + [last]
    entries = 12
    extra = 8 + 2 + entries * 12 + 4  # offset of the values that do not fit into an entry
    bits_at = extra
    resolution_at = bits_at + 2 * BANDS
    offsets_at = resolution_at + 8
    sizes_at = offsets_at + 4 * strips
    pixels_at = sizes_at + 4 * strips
    # A single value is in its entry; several are behind the directory.
    values = [pixels_at if strips == 1 else offsets_at, sizes[0] if strips == 1 else sizes_at]
    directory = [
        (256, _LONG, 1, width),
        (257, _LONG, 1, height),
        (258, _SHORT, BANDS, bits_at),
        (259, _SHORT, 1, 1),  # not compressed
        (262, _SHORT, 1, 2),  # RGB
        (273, _LONG, strips, values[0]),
        (277, _SHORT, 1, BANDS),
        (278, _LONG, 1, rows_per_strip),
        (279, _LONG, strips, values[1]),
        (282, _RATIONAL, 1, resolution_at),
        (283, _RATIONAL, 1, resolution_at),
        (296, _SHORT, 1, 2),  # the resolution is per inch
    ]
    offsets = (pixels_at + strip * full for strip in range(strips))
    return b"".join(
        (
            struct.pack("<2sHI", b"II", 42, 8),
            struct.pack("<H", entries),
            *(struct.pack("<HHII", *entry) for entry in directory),
            struct.pack("<I", 0),
            struct.pack(f"<{BANDS}H", *[8] * BANDS),
            struct.pack("<II", 72, 1),
            struct.pack(f"<{strips}I", *offsets),
            struct.pack(f"<{strips}I", *sizes),
        )
    )
