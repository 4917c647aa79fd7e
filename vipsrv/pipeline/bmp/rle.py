"""Run-length compressed bitmaps: decoded into memory, a byte a pixel, so that their size is bounded.

A stream of pairs: a count and what to repeat; or 0 and an escape: 0 ends a row, 1 the picture, 2 moves right
and up by the two bytes that follow, and any other number is a count of pixels that follow as they are, padded
to 16 bits.
"""

from vipsrv.errors import CorruptImage, TooLarge
from vipsrv.pipeline.stopping import Watch, stop_now_if

MOST_PIXELS = 1 << 25
"""Pixels of the largest picture that is decoded, somewhat more than 7680 × 4320."""

_MOST_BYTES = 4
"""Bytes of a pixel, and of a row's end: a move to the next one. Moves by nothing would make more of them."""

_ASK_EVERY = 1 << 16
"""Bytes: up to 30 ms."""

_END_OF_ROW = 0
_END = 1
_MOVE = 2


def decode(
    data: memoryview, width: int, height: int, *, half: bool, tolerant: bool, watch: Watch | None = None
) -> bytearray:
    """The numbers of the pixels' colours, row after row as stored; what is skipped is 0.

    ``half``: two pixels a byte (RLE4). What lies outside of the picture is dropped. Data that ends too early
    raise ``CorruptImage``, or give what there is where ``tolerant``; so do those that are longer than a pixel
    can take. ``watch`` is asked now and then, and its reason to stop raised.
    """
    _check_size(width, height)
    pixels = bytearray(width * height)
    at, end, x, y = 0, min(len(data), _MOST_BYTES * (width + 1) * height) - 1, 0, 0
    ask_at = 0
    while at < end and y < height:
        if at >= ask_at:
            stop_now_if(watch)
            ask_at = at + _ASK_EVERY
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
    # Some writers leave the end out: the last row is then full, or ended itself.
    if not tolerant and (y < height - 1 or (y == height - 1 and x < width)):
        raise CorruptImage(f"this run-length compressed bmp ends in row {y + 1} of {height}")
    return pixels


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise TooLarge(
            f"this run-length compressed bmp has {width * height} pixels ({width} x {height}); "
            f"{MOST_PIXELS} are allowed"
        )


def _pair(byte: int, count: int) -> bytes:
    """``count`` pixels, by turns the higher and the lower half of a byte."""
    return (bytes((byte >> 4, byte & 15)) * ((count + 1) // 2))[:count]
