"""The eight ways in which an image may be stored: EXIF orientations, mirroring and quarter turns.

All three only move pixels, so any sequence of them is again one of the eight orientations (EXIF 2.3, tag
0x0112): ``turned`` finds it. What mirrors or turns an image costs no more than its EXIF orientation.
"""

import math
from functools import cache
from typing import NamedTuple

from vipsrv.options import Flip

TRANSPOSED = {5, 6, 7, 8}
"""The orientations in which a row of the file is a column of what a viewer sees."""

STEPS = {
    1: (1, 1),
    2: (1, -1),
    3: (-1, -1),
    4: (-1, 1),
    5: (1, 1),
    6: (1, -1),
    7: (-1, -1),
    8: (-1, 1),
}
"""By orientation: the directions, down and across, in which the (transposed) image is read."""

_QUARTER = 90  # degrees
_NEARLY_EQUAL = 1.02
"""The largest proportion of the two scales at which a rotation does both."""

_Grid = tuple[tuple[int, ...], ...]
_CORNERS: _Grid = ((1, 2), (3, 4))
_FLIPS = {None: (1, 1), Flip.HORIZONTAL: (1, -1), Flip.VERTICAL: (-1, 1), Flip.BOTH: (-1, -1)}


class Region(NamedTuple):
    """A rectangle of an image in pixels."""

    left: int
    top: int
    width: int
    height: int


@cache
def turned(orientation: int, flip: Flip | None, degrees: int) -> int:
    """Return the orientation of a file of this ``orientation`` that is seen mirrored and then turned
    clockwise.

    ``degrees`` is a multiple of 90.
    """
    wanted = _read(_seen(_CORNERS, orientation), *_FLIPS[flip])
    for _ in range(degrees // _QUARTER):
        wanted = tuple(zip(*wanted[::-1], strict=True))
    return next(number for number in STEPS if _seen(_CORNERS, number) == wanted)


def stored_region(region: Region, size: tuple[int, int], orientation: int) -> Region:
    """Return where a region of the upright image, which has this ``size``, is stored."""
    down, across = STEPS[orientation]
    left = region.left if across > 0 else size[0] - region.left - region.width
    top = region.top if down > 0 else size[1] - region.top - region.height
    if orientation in TRANSPOSED:
        return Region(top, left, region.height, region.width)
    return Region(left, top, region.width, region.height)


def rotated_size(size: tuple[int, int], angle: int) -> tuple[int, int]:
    """Return the least width and height that hold an image of this ``size`` rotated by ``angle`` degrees."""
    across, along = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    width, height = size
    return _ceil(width * across + height * along), _ceil(width * along + height * across)


def size_before_rotation(
    own: tuple[int, int], seen: tuple[int, int], target: tuple[int, int]
) -> tuple[int, int]:
    """Return the size to which an image of the size ``own`` is reduced before it is rotated to ``target``;
    ``seen`` is its size after a rotation alone.
    """
    scale = min(1.0, max(target[0] / seen[0], target[1] / seen[1]))
    return max(1, round(own[0] * scale)), max(1, round(own[1] * scale))


def size_of_rotation(seen: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Return the size in which the reduced image is rotated: ``target``, unless that stretches it."""
    scales = target[0] / seen[0], target[1] / seen[1]
    if max(scales) <= _NEARLY_EQUAL * min(scales):
        return target
    same = min(1.0, max(scales))
    return max(1, math.ceil(seen[0] * same)), max(1, math.ceil(seen[1] * same))


def _ceil(side: float) -> int:
    return math.ceil(side - 1e-6)  # cosines are not exact


def _seen(stored: _Grid, orientation: int) -> _Grid:
    return _read(
        tuple(zip(*stored, strict=True)) if orientation in TRANSPOSED else stored, *STEPS[orientation]
    )


def _read(grid: _Grid, down: int, across: int) -> _Grid:
    return tuple(row[::across] for row in grid[::down])
