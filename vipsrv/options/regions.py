"""Regions and borders as options: how ``crop`` and ``pad`` are read."""

from typing import Any

from vipsrv.options.checks import as_int, read_numbers, shown

_MOST_SUM = 1 + 1e-6
"""Where a region in fractions may end: sums such as 0.7 + 0.3 are not exact."""

_WHOLE = (0.0, 0.0, 1.0, 1.0)


def read_crop(name: str, value: Any) -> tuple[float, float, float, float] | None:
    """Return left, top, width and height of a region: four ``int`` are pixels, four ``float`` fractions.

    One number with a fraction makes all four fractions of the image's width and height. ``None`` is the whole
    image: as fractions it would be equal to its first pixel, because 1 and 1.0 are.
    """
    left, top, width, height = read_numbers(name, value)
    if type(left) is type(top) is type(width) is type(height) is int:
        if not (width and height):
            raise ValueError(f"{name}: width and height must be from 1, not 0")
        return left, top, width, height
    if max(left, top, width, height) > 1:
        raise ValueError(
            f"{name}: four whole numbers are pixels, fractions are from 0 to 1; "
            f"not {shown(next(one for one in (left, top, width, height) if one > 1))}"
        )
    if not (width and height):
        raise ValueError(f"{name}: width and height must be more than 0")
    for side, start, size in (("left + width", left, width), ("top + height", top, height)):
        if start + size > _MOST_SUM:
            raise ValueError(f"{name}: {side} must be at most 1, not {start + size:.6g}")
    fractions = float(left), float(top), float(width), float(height)
    return None if fractions == _WHOLE else fractions


def read_pad(name: str, value: Any) -> tuple[int, int, int, int] | None:
    """Return the border at the top, right, bottom and left in pixels; one number is all four.

    ``None`` means no border.
    """
    number = as_int(value)
    borders = read_numbers(name, [number] * 4 if isinstance(number, int | float) else value)
    for one in borders:
        if type(one) is not int:
            raise ValueError(f"{name}: must be whole numbers of pixels, not {shown(one)}")
    top, right, bottom, left = map(int, borders)
    return (top, right, bottom, left) if any(borders) else None
