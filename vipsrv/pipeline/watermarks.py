"""The images that ``watermark`` may name: decoded once in a process, at its start.

They are decoded by the same pipeline, with the same limits, as any upload, to 8-bit sRGB with alpha, and kept
at no more than ``MAX_SIDE`` pixels on a side, because every worker holds them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pyvips

from vipsrv.errors import BadRequest

MAX_SIDE = 2048
"""Pixels: a larger one is reduced. With alpha it takes 16 MiB of memory in each worker."""


@dataclass(frozen=True, slots=True, eq=False)
class Watermark:
    """An image in memory: RGB with alpha."""

    image: pyvips.Image

    def size_within(self, scale: float, width: int, height: int) -> tuple[int, int]:
        """Return the size for a result of ``width`` × ``height`` pixels: ``scale`` times as wide, or less if
        it would be higher than the result.
        """
        ratio = self.image.width / self.image.height
        across = min(width * scale, height * ratio)
        return max(1, round(across)), max(1, min(height, round(across / ratio)))


_watermarks: dict[str, Watermark] = {}


def use_watermarks(images: Mapping[str, pyvips.Image]) -> None:
    """Use these images, RGB with alpha, from now on."""
    _watermarks.clear()
    _watermarks.update((name, Watermark(image.copy_memory())) for name, image in images.items())


def find_watermark(name: str) -> Watermark:
    """Return the watermark of this name. Raises ``BadRequest``, which lists the names, if there is none."""
    found = _watermarks.get(name)
    if found is None:
        known = f"it has {', '.join(sorted(_watermarks))}" if _watermarks else "it has none"
        raise BadRequest(f"watermark: this server has no {name}; {known}")
    return found
