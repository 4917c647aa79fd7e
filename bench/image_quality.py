"""How well a result looks, measured against a reference: SSIM of the luma, difference of the colours.

The reference is the whole image, decoded at full size and reduced with Lanczos by libvips, streamed, so that
an image of 400 megapixels has one, too. It is no check of libvips itself: the tests compare results with
Pillow's. Two images are compared as NumPy arrays of shape (height, width, 3), 8-bit sRGB.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips
from PIL import Image

Pixels = npt.NDArray[np.uint8]
_Plane = npt.NDArray[np.float64]

_WINDOW = 8
"""Pixels: the side of a window of SSIM. Windows overlap by half."""

# The constants of SSIM for 8-bit samples: (0.01 * 255)**2 and (0.03 * 255)**2.
_C1 = 6.5025
_C2 = 58.5225

# Rec. 601, as in JFIF.
_TO_LUMA = np.array([0.299, 0.587, 0.114])
_TO_CB = np.array([-0.168736, -0.331264, 0.5])
_TO_CR = np.array([0.5, -0.418688, -0.081312])


def decode(data: bytes) -> Pixels:
    """Decode a result with Pillow, every pixel of it.

    Raises ``OSError`` where Pillow finds no image or only a part of one, and ``ValueError`` where bytes
    follow the end of a JPEG.
    """
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "JPEG" and not data.endswith(b"\xff\xd9"):
            raise ValueError(f"{len(data)} bytes do not end with the end of the JPEG")
        return np.asarray(image.convert("RGB"))


def reference(path: Path, width: int, height: int) -> Pixels:
    """Reduce an image file to exactly these dimensions, as well as libvips can.

    Its EXIF orientation is applied, its colours are converted to sRGB and transparency is laid on white.
    Raises ``pyvips.Error`` where libvips cannot read it.
    """
    image: Any = pyvips.Image.new_from_file(str(path))
    if image.get_typeof("orientation") and image.get("orientation") > 1:
        image = image.autorot()
    else:
        image = pyvips.Image.new_from_file(str(path), access="sequential")  # row after row, in little memory
    if image.get_typeof("icc-profile-data"):
        image = image.icc_transform("srgb", embedded=True, intent="relative", depth=8)
    elif image.interpretation != "srgb":
        image = image.colourspace("srgb")
    if image.hasalpha():
        image = image.flatten(background=255)
    horizontal, vertical = width / image.width, height / image.height
    small = image.cast("uchar").resize(horizontal, vscale=vertical, kernel="lanczos3", gap=0)
    return np.ndarray((small.height, small.width, 3), np.uint8, small.write_to_memory())


def ssim(one: Pixels, other: Pixels) -> float:
    """The mean structural similarity of the luma: 1 for equal images, about 0 for unrelated ones.

    Z. Wang and others, "Image quality assessment: from error visibility to structural similarity", IEEE
    Trans. Image Processing 13, 2004, with windows of equal weight. Raises ``ValueError`` where the sizes
    differ.
    """
    _check_sizes(one, other)
    x, y = (np.rint(pixels @ _TO_LUMA) for pixels in (one, other))
    values = []
    for left in range(0, min(_WINDOW, x.shape[1]), _WINDOW // 2):
        for top in range(0, min(_WINDOW, x.shape[0]), _WINDOW // 2):
            part = np.s_[top:, left:]
            mean_x, mean_y, mean_xx, mean_yy, mean_xy = (
                _window_means(plane[part]) for plane in (x, y, x * x, y * y, x * y)
            )
            both, squares = mean_x * mean_y, mean_x**2 + mean_y**2
            likeness = (2 * both + _C1) * (2 * (mean_xy - both) + _C2)
            values.append(likeness / ((squares + _C1) * (mean_xx + mean_yy - squares + _C2)))
    return float(np.mean(np.concatenate([one.ravel() for one in values])))


def colour_difference(one: Pixels, other: Pixels) -> float:
    """The mean absolute difference of Cb and Cr, in levels of 256: SSIM does not see a loss of colour.

    Raises ``ValueError`` where the sizes differ.
    """
    _check_sizes(one, other)
    difference = one.astype(np.float64) - other
    return float(np.mean([np.abs(difference @ to_chroma) for to_chroma in (_TO_CB, _TO_CR)]))


def _window_means(plane: _Plane) -> _Plane:
    """The mean of each window; those at the right and lower edges may be smaller."""
    for axis in (0, 1):
        starts = np.arange(0, plane.shape[axis], _WINDOW)
        sizes = np.diff(np.append(starts, plane.shape[axis]))
        shape = (-1, 1) if axis == 0 else (1, -1)
        plane = np.add.reduceat(plane, starts, axis=axis) / sizes.reshape(shape)
    return plane


def _check_sizes(one: Pixels, other: Pixels) -> None:
    if one.shape != other.shape:
        raise ValueError(f"images of shapes {one.shape} and {other.shape} cannot be compared")
