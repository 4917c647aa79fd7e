"""How much a result looks like the image before it was encoded: SSIM of the luma.

Z. Wang, A. Bovik, H. Sheikh and E. Simoncelli, "Image quality assessment: from error visibility to structural
similarity", IEEE Trans. Image Processing 13(4), 2004, equation 13, with windows of 8 × 8 pixels of equal
weight that overlap by half, and the mean over all windows. 1 means equal, about 0 unrelated. The luma is that
of JFIF (ITU-R BT.601), of 8 bits. An image with transparency is compared on black and on white, and the lower
value counts: neither hides what the other shows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyvips
from numpy.typing import NDArray

MEMORY_PER_PIXEL = 12
"""Bytes, with transparency: the two lumas of the reference, the bands and the two lumas of the result, and
the sums of both."""

SECONDS_PER_MEGAPIXEL = 0.004
"""CPU seconds to decode a result again and to compare it, less than was measured with any format."""

_Plane = NDArray[np.uint8]
_Sums = NDArray[np.float32]

_STEP = 4
"""Pixels from one window to the next: half of a window's side."""

_STRIP = 64
"""Rows that are summed at a time: their intermediate planes stay in the cache."""

_WINDOW_PIXELS = (2 * _STEP) ** 2

# (0.01 * 255)**2 and (0.03 * 255)**2, as in the paper.
_C1 = np.float32(6.5025)
_C2 = np.float32(58.5225)

# 0.299, 0.587 and 0.114 times 256: the sum, 255 times as large at most, fits into 16 bits.
_RED, _GREEN, _BLUE, _HALF, _BITS = 77, 150, 29, 128, 8

_COLOURS = 3


@dataclass(frozen=True, slots=True)
class _Sight:
    """A plane of luma, and in each block of 4 × 4 pixels the sums of its values and of their squares."""

    luma: _Plane
    sums: _Sums
    squares: _Sums


class Likeness:
    """Compares results with one image, whose part of the work is done once."""

    def __init__(self, image: pyvips.Image) -> None:
        """Compute an 8-bit image of 1 to 4 bands. Raises ``pyvips.Error``."""
        self._size = (image.width, image.height)
        self._seen = [_sight(luma) for luma in _lumas(image)]

    def of(self, result: pyvips.Image) -> float:
        """Return the SSIM of a decoded result. Raises ``pyvips.Error``, ``ValueError`` for another size."""
        self._check_size(result.width, result.height)
        lumas = _lumas(result)
        if len(lumas) < len(self._seen):  # the encoder found no transparency
            lumas *= len(self._seen)
        # The other way round all of the image was opaque, and its luma is that on any background.
        seen = self._seen * (len(lumas) // len(self._seen))
        return min(_ssim(one, luma) for one, luma in zip(seen, lumas, strict=True))

    def of_luma(self, luma: _Plane) -> float:
        """Return the SSIM of a result without transparency, by its luma. Raises ``ValueError`` for another
        size.
        """
        height, width = luma.shape
        self._check_size(width, height)
        return min(_ssim(one, luma) for one in self._seen)

    def _check_size(self, width: int, height: int) -> None:
        if (width, height) != self._size:
            raise ValueError(f"a result of {width} x {height} pixels cannot be compared with {self._size}")


def _lumas(image: pyvips.Image) -> list[_Plane]:
    """The luma, or that on black and that on white if there is transparency."""
    if image.format != "uchar":
        image = image.cast("uchar")
    has_alpha = image.hasalpha()
    pixels = np.frombuffer(image.write_to_memory(), np.uint8).reshape(image.height, image.width, image.bands)
    luma = _luma(pixels)
    if not has_alpha:
        return [luma]
    alpha = pixels[..., -1].astype(np.uint16)
    on_black = _divided_by_255(luma * alpha)
    return [on_black, on_black + (255 - pixels[..., -1])]


def _luma(pixels: NDArray[np.uint8]) -> _Plane:
    if pixels.shape[2] < _COLOURS:
        return np.ascontiguousarray(pixels[..., 0])
    total = pixels[..., 0] * np.uint16(_RED)
    total += pixels[..., 1] * np.uint16(_GREEN)
    total += pixels[..., 2] * np.uint16(_BLUE)
    total += np.uint16(_HALF)
    total >>= np.uint16(_BITS)
    return total.astype(np.uint8)


def _divided_by_255(products: NDArray[np.uint16]) -> _Plane:
    products += np.uint16(_HALF)
    products += products >> np.uint16(_BITS)
    products >>= np.uint16(_BITS)
    return products.astype(np.uint8)


def _sight(luma: _Plane) -> _Sight:
    luma = _padded(luma)
    return _Sight(luma, _block_sums(_same, luma), _block_sums(_square, luma))


def _ssim(one: _Sight, luma: _Plane) -> float:
    other = _sight(luma)
    products = _block_sums(np.multiply, one.luma, other.luma)
    scale = np.float32(1 / _WINDOW_PIXELS)
    mean_x, mean_y, mean_squares, mean_products = (
        _windows(sums) * scale for sums in (one.sums, other.sums, one.squares + other.squares, products)
    )
    both, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    likeness = (2 * both + _C1) * (2 * (mean_products - both) + _C2)
    likeness /= (squares + _C1) * (mean_squares - squares + _C2)
    return float(likeness.mean(dtype=np.float64))


def _padded(luma: _Plane) -> _Plane:
    """Repeat the last row and column until blocks and a window fit in."""
    missing = [max(2 * _STEP, -(-side // _STEP) * _STEP) - side for side in luma.shape]
    return np.pad(luma, [(0, missing[0]), (0, missing[1])], mode="edge") if any(missing) else luma


def _block_sums(combine: Callable[..., _Sums], *planes: _Plane) -> _Sums:
    """Sum what ``combine`` makes of the planes in blocks of 4 × 4: below 2**24, so exactly."""
    height, width = planes[0].shape
    sums = np.empty((height // _STEP, width // _STEP), np.float32)
    for top in range(0, height, _STRIP):
        rows = [plane[top : top + _STRIP].astype(np.float32) for plane in planes]
        values = combine(*rows)
        down = values[0::_STEP] + values[1::_STEP] + values[2::_STEP] + values[3::_STEP]
        across = down[:, 0::_STEP] + down[:, 1::_STEP] + down[:, 2::_STEP] + down[:, 3::_STEP]
        sums[top // _STEP : top // _STEP + len(across)] = across
    return sums


def _same(values: _Sums) -> _Sums:
    return values


def _square(values: _Sums) -> _Sums:
    return values * values


def _windows(sums: _Sums) -> _Sums:
    """Add up four blocks to a window, for each place of the window."""
    down = sums[:-1] + sums[1:]
    return down[:, :-1] + down[:, 1:]
