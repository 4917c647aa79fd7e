"""Pixels of 8-bit RGB in memory, and their way to and from libvips."""

from dataclasses import dataclass

import numpy as np
import pyvips
from numpy.typing import NDArray

from vipsrv.pipeline.orientation import STEPS, TRANSPOSED

BANDS = 3


@dataclass(frozen=True, slots=True)
class Pixels:
    """An RGB image: ``array`` is height × width × 3 of unsigned bytes, row after row without a gap."""

    array: NDArray[np.uint8]

    @classmethod
    def from_libvips(cls, image: pyvips.Image) -> "Pixels":
        """Compute an 8-bit RGB image of libvips. Raises ``pyvips.Error``."""
        return cls(np.frombuffer(image.write_to_memory(), np.uint8).reshape(image.height, image.width, BANDS))

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.array.shape[1])

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.array.shape[0])

    def upright(self, orientation: int) -> "Pixels":
        """Return the pixels as a viewer sees them, by the EXIF ``orientation`` (EXIF 2.3, tag 0x0112)."""
        if orientation == 1:
            return self
        # One element a pixel, so that three bytes are copied at a time.
        pixels = self.array.view("V3")[:, :, 0]
        if orientation in TRANSPOSED:
            pixels = pixels.T
        down, across = STEPS[orientation]
        pixels = pixels[::down, ::across].copy()
        return Pixels(pixels[:, :, None].view("u1"))

    def to_libvips(self) -> pyvips.Image:
        """Return a libvips image of these pixels, without a copy."""
        image = pyvips.Image.new_from_memory(self.array, self.width, self.height, BANDS, "uchar")
        return image.copy(interpretation="srgb")
