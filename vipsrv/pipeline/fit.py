"""Geometry: how large the whole picture becomes, and what part of it or what frame around it is the result.

::

    fill      stretched to width × height
    inside    as large as fits into width × height; the result has the picture's own shape
    outside   as small as covers width × height; likewise
    contain   like inside, then laid on a canvas of width × height
    cover     like outside, then cut to width × height

With one of the two sides only, all but ``fill`` give the picture its own shape at that side. Without
``enlarge`` no side of the picture grows: ``fill`` is clipped side by side, the others stop at the picture's
own size, ``cover`` cuts from what there is, and ``contain`` lays the small picture on its full canvas.
"""

from dataclasses import dataclass

from vipsrv.options import Fit, ResizeOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Pixels: the whole picture is scaled to ``scaled``; the result is ``width`` × ``height``."""

    scaled: tuple[int, int]
    width: int
    height: int


def fit(options: ResizeOptions, width: int, height: int) -> Placement:
    """The placement of a picture that a viewer sees in ``width`` × ``height`` pixels."""
    scaled = _scaled(options, width, height)
    if not options.enlarge:
        scaled = _not_enlarged(options.fit, scaled, width, height)
    across, down = scaled
    if options.width is not None and options.height is not None:
        if options.fit is Fit.CONTAIN:
            across, down = options.width, options.height
        elif options.fit is Fit.COVER:
            across, down = min(across, options.width), min(down, options.height)
    return Placement(scaled=scaled, width=across, height=down)


def _scaled(options: ResizeOptions, width: int, height: int) -> tuple[int, int]:
    across, down = options.width, options.height
    if across is None:
        assert down is not None, "ResizeOptions has at least one"  # noqa: S101
        return _share(width, down, height), down
    if down is None:
        return across, _share(height, across, width)
    if options.fit is Fit.FILL:
        return across, down
    touches_sides = across * height <= down * width  # the width is the tighter of the two
    if touches_sides == (options.fit in {Fit.CONTAIN, Fit.INSIDE}):
        return across, _share(height, across, width)
    return _share(width, down, height), down


def _not_enlarged(kind: Fit, scaled: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    across, down = scaled
    if kind is Fit.FILL:
        return min(across, width), min(down, height)
    return (width, height) if across > width or down > height else scaled


def _share(side: int, part: int, whole: int) -> int:
    """``side`` × ``part`` / ``whole``, rounded half up, and at least a pixel."""
    return max(1, (2 * side * part + whole) // (2 * whole))
