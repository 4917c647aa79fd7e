"""Decode run-length compressed bitmaps into memory, one byte per pixel, up to a maximum size.

The data are a stream of pairs: a count and a value to repeat, or 0 and an escape. Escape 0 ends a row, 1 ends
the image, 2 moves right and up by the two bytes that follow, and any other number is a count of pixels that
follow uncompressed, padded to 16 bits.
"""

from vipsrv.errors import CorruptImage
from vipsrv.pipeline.formats.base import check_decoded_pixels
from vipsrv.pipeline.vips.stopping import StopCheck, stop_if_asked

_MAX_BYTES = 4
"""Bytes of data that a pixel, or the end of a row, may take: a move to the next one. Without this bound moves
by 0 could fill a file of any size."""

_CHECK_EVERY = 1 << 16
"""Bytes between two calls of ``watch``: up to 30 ms."""

_END_OF_ROW = 0
_END = 1
_MOVE = 2


def decode(
    data: memoryview, width: int, height: int, *, half: bool, tolerant: bool, watch: StopCheck | None = None
) -> bytearray:
    """Return the palette indices of the pixels, row after row as stored; skipped pixels are 0.

    ``half``: two pixels per byte (RLE4). Pixels outside of the image are dropped. Data that end early, or
    that are longer than their pixels can take, raise ``CorruptImage``; if ``tolerant``, they give the pixels
    that exist. Raises the reason of ``watch`` to stop.
    """
    check_decoded_pixels("run-length compressed bmp", width, height)
    pixels = bytearray(width * height)
    at, end, x, y = 0, min(len(data), _MAX_BYTES * (width + 1) * height) - 1, 0, 0
    check_at = 0
    while at < end and y < height:
        if at >= check_at:
            stop_if_asked(watch)
            check_at = at + _CHECK_EVERY
        count, value = data[at], data[at + 1]
        at += 2
        if count:
            run = _pair(value, count) if half else bytes((value,)) * count
        elif value == _END_OF_ROW:
            x, y = 0, y + 1
            continue
        elif value == _END:
            return pixels
        elif value == _MOVE:
            if at >= end:
                break
            x, y = x + data[at], y + data[at + 1]
            at += 2
            continue
        else:
            size = (value + 1) // 2 if half else value
            stored = bytes(data[at : at + size])
            run = b"".join(_pair(byte, 2) for byte in stored)[:value] if half else stored
            at += size + size % 2
        if x < width:
            run = run[: width - x]
            pixels[y * width + x : y * width + x + len(run)] = run
        x += count or value
    # Some writers omit the end of the image: then the last row is full, or has its own end.
    if not tolerant and (y < height - 1 or (y == height - 1 and x < width)):
        raise CorruptImage(f"this run-length compressed bmp ends in row {y + 1} of {height}")
    return pixels


def _pair(byte: int, count: int) -> bytes:
    """``count`` pixels, alternating between the higher and the lower half of a byte."""
    return (bytes((byte >> 4, byte & 15)) * ((count + 1) // 2))[:count]
