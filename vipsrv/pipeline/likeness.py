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

MEMORY_PER_PIXEL, MEMORY_PER_ALPHA_PIXEL = 12, 24
"""Bytes, without alpha and with it: the result that is decoded again, the lumas of both, and what the
allocator keeps of one encode for the next. Measured with 2000 × 1500 pixels of noise as AVIF and WebP.
"""

SECONDS_PER_MEGAPIXEL = 0.004
"""CPU seconds to decode a result again and to compare it, less than was measured with any format."""

_Pixels = NDArray[np.uint8]
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
_WITH_ALPHA = {2, 4}
"""Numbers of bands."""


@dataclass(frozen=True, slots=True)
class _Sight:
    """A plane of luma, and in each block of 4 × 4 pixels the sums of its values and of their squares."""

    luma: _Plane
    sums: _Sums
    squares: _Sums


class Likeness:
    """Compares results with one image, whose part of the work is done once.

    Images are arrays of height × width × bands, the last of two or four bands being alpha.
    """

    def __init__(self, image: _Pixels) -> None:
        """Look at the image that results are compared with."""
        self._size = image.shape[:2]
        self._seen = [_sight(luma) for luma in _lumas(image)]

    def of(self, result: _Pixels) -> float:
        """Return the SSIM of a decoded result. Raises ``ValueError`` for another size."""
        self._check_size(result)
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
        self._check_size(luma)
        return min(_ssim(one, luma) for one in self._seen)

    def _check_size(self, result: NDArray[np.uint8]) -> None:
        if result.shape[:2] != self._size:
            raise ValueError(f"a result of {result.shape[:2]} pixels cannot be compared with {self._size}")


def pixels_of(image: pyvips.Image) -> _Pixels:
    """Compute an 8-bit image for a ``Likeness``. Raises ``pyvips.Error``."""
    if image.format != "uchar":
        image = image.cast("uchar")
    return np.frombuffer(image.write_to_memory(), np.uint8).reshape(image.height, image.width, image.bands)


def _lumas(image: _Pixels) -> list[_Plane]:
    """The luma, or that on black and that on white if there is alpha."""
    planes = [np.empty(image.shape[:2], np.uint8) for _ in range(2 if image.shape[2] in _WITH_ALPHA else 1)]
    for top in range(0, len(image), _STRIP):
        rows = slice(top, top + _STRIP)
        for plane, strip in zip(planes, _strip_lumas(image[rows]), strict=True):
            plane[rows] = strip
    return planes


def _strip_lumas(pixels: _Pixels) -> list[_Plane]:
    luma = _luma(pixels)
    if pixels.shape[2] not in _WITH_ALPHA:
        return [luma]
    alpha = pixels[..., -1]
    on_black = _divided_by_255(luma.astype(np.uint16) * alpha.astype(np.uint16))
    return [on_black, on_black + (255 - alpha)]


def _luma(pixels: _Pixels) -> _Plane:
    if pixels.shape[2] < _COLOURS:
        return pixels[..., 0]
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
