"""Decompress blocks of 4 x 4 pixels (BC1 to BC5), many at a time.

A block of colours has two of them, as 5, 6 and 5 bits, and two bits for each pixel, which choose one of the
two or of two between them. A block of one channel likewise has two values, and three bits for each pixel.

Source: Khronos, "Khronos Data Format Specification" 1.3, section 18 (S3TC) and 19 (RGTC).
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vipsrv.errors import CorruptImage
from vipsrv.pipeline.formats.dds.header import Blocks
from vipsrv.pipeline.vips.stopping import StopCheck, stop_if_asked

_T = TypeVar("_T", bound=np.generic)

SIDE = 4
"""Pixels on each side of a block."""

_AT_ONCE = 1 << 16
"""Blocks that are decompressed at once: a million pixels, some 20 MB of memory, 20 ms."""

_BANDS = {Blocks.BC4: 1, Blocks.BC4_SIGNED: 1, Blocks.BC5: 3, Blocks.BC5_SIGNED: 3}
_SIGNED = {Blocks.BC4_SIGNED, Blocks.BC5_SIGNED}
_OPAQUE = 0xFF000000
_TWO_BITS = np.arange(0, 32, 2, dtype=np.uint32)
_THREE_BITS = np.arange(0, 48, 3, dtype=np.uint64)
_FOUR_BITS = np.arange(0, 64, 4, dtype=np.uint64)


def count_blocks(side: int) -> int:
    """Return the number of blocks on a side of an image."""
    return -(-side // SIDE)


def has_transparent_pixels(data: memoryview) -> bool:
    """Whether a pixel of these BC1 blocks is transparent: the fourth colour of a block whose first colour is
    not above its second one.
    """
    words = np.frombuffer(data[: len(data) // 8 * 8], "<u2").reshape(-1, 4)
    for start in range(0, len(words), _AT_ONCE):
        part = words[start : start + _AT_ONCE]
        bits = part[part[:, 0] <= part[:, 1], 2:]
        if np.any(bits & (bits >> 1) & 0x5555):
            return True
    return False


def decompress(
    data: memoryview, kind: Blocks, size: tuple[int, int], *, tolerant: bool, watch: StopCheck | None = None
) -> NDArray[np.uint8]:
    """Return the pixels as an array of height, width and bands: RGBA, grey of BC4, or RGB of BC5.

    Blocks that are missing raise ``CorruptImage``; if ``tolerant``, their pixels are 0. Raises the reason of
    ``watch`` to stop.
    """
    width, height = size
    across, down = count_blocks(width), count_blocks(height)
    row = across * kind.size
    there = len(data) // row
    if there < down and not tolerant:
        raise CorruptImage(f"this dds is truncated: it has {there} of {down} rows of blocks")
    bands = _BANDS.get(kind, 4)
    pixels = np.zeros((height, width, bands), np.uint8)
    step = max(1, _AT_ONCE // across)
    for first in range(0, min(there, down), step):
        stop_if_asked(watch)
        count = min(step, min(there, down) - first)
        blocks = np.frombuffer(data[first * row : (first + count) * row], np.uint8).reshape(-1, kind.size)
        decoded = _decode(blocks, kind).reshape(count, across, SIDE, SIDE, bands)
        rows = decoded.swapaxes(1, 2).reshape(count * SIDE, across * SIDE, bands)
        top = first * SIDE
        pixels[top : top + count * SIDE] = rows[: height - top, :width]
    return pixels


def _decode(blocks: NDArray[np.uint8], kind: Blocks) -> NDArray[np.uint8]:
    """Return the 16 pixels of each block."""
    if kind is Blocks.BC1:
        return _bytes(_colours(blocks, with_alpha=True))
    if _BANDS.get(kind) == 1:
        return _channel(blocks, is_signed=kind in _SIGNED)
    if kind in _BANDS:
        red, green = (_channel(blocks[:, at : at + 8], is_signed=kind in _SIGNED) for at in (0, 8))
        # Blue is 0, which is 128 among signed values.
        return np.stack((red, green, np.full_like(red, 128 if kind in _SIGNED else 0)), axis=-1)
    pixels = _bytes(_colours(blocks[:, 8:], with_alpha=False))
    first = np.ascontiguousarray(blocks[:, :8])
    if kind is Blocks.BC2:
        bits = first.view("<u8")
        pixels[..., 3] = ((bits >> _FOUR_BITS) & 15).astype(np.uint8) * 17
    else:
        pixels[..., 3] = _channel(first)
    return pixels


def _bytes(pixels: NDArray[np.uint32]) -> NDArray[np.uint8]:
    return pixels.astype("<u4", copy=False).view(np.uint8).reshape(*pixels.shape, 4)


def _colours(blocks: NDArray[np.uint8], *, with_alpha: bool) -> NDArray[np.uint32]:
    """Return the 16 pixels of each block of colours as RGBA, red in the lowest byte."""
    words = np.ascontiguousarray(blocks).view("<u2").astype(np.uint32)
    first, second = words[:, 0], words[:, 1]
    ends = []
    for word in (first, second):
        red, green, blue = word >> 11, word >> 5 & 63, word & 31
        ends.append(np.stack((red << 3 | red >> 2, green << 2 | green >> 4, blue << 3 | blue >> 2)))
    one, two = ends
    third, fourth = (2 * one + two) // 3, (one + 2 * two) // 3
    table = np.empty((len(words), 4), np.uint32)
    for number, (red, green, blue) in enumerate((one, two, third, fourth)):
        table[:, number] = red | green << 8 | blue << 16 | _OPAQUE
    if with_alpha:
        three = first <= second
        red, green, blue = ((one + two) // 2)[:, three]
        table[three, 2] = red | green << 8 | blue << 16 | _OPAQUE
        table[three, 3] = 0
    indices = (words[:, 2] | words[:, 3] << 16)[:, None] >> _TWO_BITS & 3
    return _look_up(table, indices)


def _channel(blocks: NDArray[np.uint8], *, is_signed: bool = False) -> NDArray[np.uint8]:
    """Return the 16 values of each block of one channel; those of -128 to 127 become 0 to 255."""
    first, second = (blocks[:, number].astype(np.uint16) ^ (128 if is_signed else 0) for number in (0, 1))
    table = np.empty((len(blocks), 8), np.uint8)
    table[:, 0], table[:, 1] = first, second
    for number in range(1, 7):
        table[:, number + 1] = ((7 - number) * first + number * second) // 7
    five = first <= second
    low, high = first[five], second[five]
    for number in range(1, 5):
        table[five, number + 1] = ((5 - number) * low + number * high) // 5
    table[five, 6], table[five, 7] = 0, 255
    bits = np.ascontiguousarray(blocks).view("<u8") >> np.uint64(16)
    return _look_up(table, bits >> _THREE_BITS & 7)


def _look_up(table: NDArray[_T], indices: NDArray[np.integer[Any]]) -> NDArray[_T]:
    return np.take_along_axis(table, indices.astype(np.intp), axis=1)
