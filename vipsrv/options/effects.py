"""Checks of those options of effects that are more than one number."""

import re
from typing import Any

from vipsrv.options.checks import read_choice, read_number, shown
from vipsrv.options.names import Position

BY_CONTENT = frozenset({Position.ENTROPY, Position.ATTENTION})
"""The positions that are found by looking at the image; a watermark has none of them."""

WATERMARK_PATTERN = "[a-z0-9][a-z0-9_-]{0,31}"
"""The names that an operator may give to a watermark."""


def read_sharpen(name: str, value: Any) -> bool | float:
    """Return the value of ``sharpen``: true, false, or the sigma of an unsharp mask."""
    # A sigma is always a float, because the sigma 1 would be equal to true.
    return value if isinstance(value, bool) else float(read_number(name, value))


def read_watermark(name: str, value: Any) -> str:
    """Return the name of a watermark. Which names there are is known where the images are."""
    if not isinstance(value, str) or not re.fullmatch(WATERMARK_PATTERN, value):
        raise ValueError(
            f"{name}: must be 1 to 32 lower-case letters, digits, hyphens and underscores, not {shown(value)}"
        )
    return value


def read_watermark_position(name: str, value: Any) -> Position:
    """Return where a watermark is placed."""
    position = read_choice(name, Position, value)
    if position in BY_CONTENT:
        raise ValueError(f"{name}: must be a corner, a side or centre, not {position}")
    return position
