"""What a command line asks for: the options of each result."""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from vipsrv.options import Fit, ResizeOptions
from vipsrv.protocol import DEFAULT_HEIGHT, DEFAULT_WIDTH

Size = tuple[int | None, int | None]
"""Width and height in pixels; one of them may be left out."""

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}


def outputs_for(
    size: Size, sizes: Sequence[Size], *, fit: Fit | None, **options: Any
) -> tuple[ResizeOptions, ...]:
    """One result for each of ``sizes``, or where there are none for ``size``, in pixels; neither side given
    means the original's 800 × 600.

    Where a side is left out and no ``fit`` is given, the picture keeps its aspect ratio. Raises
    ``ValueError`` for options that make no sense.
    """
    if sizes and size != (None, None):
        raise ValueError("--output-sizes takes the place of --width and --height: choose one of both ways")
    if size == (None, None):
        size = DEFAULT_WIDTH, DEFAULT_HEIGHT
    return tuple(
        ResizeOptions(
            width=width,
            height=height,
            fit=fit or (Fit.INSIDE if width is None or height is None else Fit.FILL),
            **options,
        )
        for width, height in sizes or [size]
    )


def parse_sizes(text: str) -> list[Size]:
    """The sizes of ``320x,x480,800x600``. Raises ``ValueError`` for what is none and for one that is twice
    there.
    """
    sizes: list[Size] = []
    for word in text.split(","):
        match = re.fullmatch(r"(\d{0,10})[xX](\d{0,10})", word.strip(), re.ASCII)
        if match is None or not any(match.groups()):
            raise ValueError(
                f"--output-sizes: {word.strip()!r} is no size; write 800x600, 320x or x480, a comma between"
            )
        width, height = (int(side) if side else None for side in match.groups())
        if (width, height) in sizes:
            raise ValueError(f"--output-sizes: {word.strip()} is there twice")
        sizes.append((width, height))
    return sizes


def parse_bytes(option: str, text: str) -> int:
    """The bytes of ``100000``, ``100KB`` or ``1.5MiB``. Raises ``ValueError``, which names the option."""
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?)\s*([kmg]i?)?b?", text.strip().lower(), re.ASCII)
    if match is None:
        raise ValueError(f"{option}: {text!r} is no size; write bytes, or as 100KB or 1.5MiB")
    return int(Fraction(match[1]) * _UNITS[match[2] or ""])
