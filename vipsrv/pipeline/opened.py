"""What a reader of our own gives: the header's facts now, the picture when somebody asks for it."""

from collections.abc import Callable
from dataclasses import dataclass

import pyvips

from vipsrv.errors import TooLarge

MOST_SIDE = 1_500_000
"""Pixels on a side: more than occur. A row of several bytes a pixel is an image as wide as its bytes where
it is padded by no whole pixel, which stays far below libvips' 100,000,000 (``VIPS_MAX_COORD``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """``width`` and ``height`` are pixels. ``picture`` builds the image, upright; called after the limits
    were checked, it may raise ``CorruptImage`` and ``TooLarge``. ``is_bgr`` says that its three bands are
    still in the order blue, green, red. ``inner`` is the picture of a format of libvips' that it holds,
    opened already, and ``memory`` the bytes that this took.
    """

    width: int
    height: int
    has_alpha: bool
    picture: Callable[[], pyvips.Image]
    is_bgr: bool = False
    inner: pyvips.Image | None = None
    memory: int = 0


def check_sides(name: str, width: int, height: int) -> None:
    """Raises ``TooLarge`` for a picture that no image of libvips can hold."""
    if max(width, height) > MOST_SIDE:
        raise TooLarge(f"this {name} is {width} x {height}; it may have {MOST_SIDE} pixels on a side")
