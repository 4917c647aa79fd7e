"""The size to which the whole image is scaled, and the size of the result, which may be a part of it or have
a frame around it.

::

    fill      stretched to width × height
    inside    as large as fits into width × height; the result has the proportions of the image
    outside   as small as covers width × height; likewise
    contain   like inside, then placed on a canvas of width × height
    cover     like outside, then cropped to width × height

If only one of the two sides is given, all but ``fill`` keep the proportions of the image. Without ``enlarge``
no side of the image grows: ``fill`` limits each side on its own, the others stop at the size of the image,
``cover`` crops the image at its own size, and ``contain`` places the small image on its full canvas.
``pad`` adds its border to all of these sizes.
"""

from dataclasses import dataclass

from vipsrv.options import Fit, ResizeOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Sizes in pixels: the whole image is scaled to ``scaled``, then cropped or placed on a canvas to
    ``fitted``; the result, with the border of ``pad``, is ``width`` × ``height``.
    """

    scaled: tuple[int, int]
    fitted: tuple[int, int]
    width: int
    height: int

    @property
    def computed_pixels(self) -> int:
        """Pixels that are computed, including those that ``cover`` crops."""
        return max(self.scaled[0] * self.scaled[1], self.width * self.height)


def fit(options: ResizeOptions, width: int, height: int) -> Geometry:
    """Return the geometry for an image that a viewer sees in ``width`` × ``height`` pixels."""
    scaled = _scaled(options, width, height)
    if not options.enlarge:
        scaled = _not_enlarged(options.fit, scaled, width, height)
    across, down = scaled
    if options.width is not None and options.height is not None:
        if options.fit is Fit.CONTAIN:
            across, down = options.width, options.height
        elif options.fit is Fit.COVER:
            across, down = min(across, options.width), min(down, options.height)
    if options.pad is None:
        return Geometry(scaled=scaled, fitted=(across, down), width=across, height=down)
    top, right, bottom, left = options.pad
    return Geometry(
        scaled=scaled, fitted=(across, down), width=left + across + right, height=top + down + bottom
    )


def _scaled(options: ResizeOptions, width: int, height: int) -> tuple[int, int]:
    across, down = options.width, options.height
    if across is None:
        assert down is not None, "ResizeOptions has at least one"  # noqa: S101
        return _proportional(width, down, height), down
    if down is None:
        return across, _proportional(height, across, width)
    if options.fit is Fit.FILL:
        return across, down
    is_width_tighter = across * height <= down * width
    if is_width_tighter == (options.fit in {Fit.CONTAIN, Fit.INSIDE}):
        return across, _proportional(height, across, width)
    return _proportional(width, down, height), down


def _not_enlarged(kind: Fit, scaled: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    across, down = scaled
    if kind is Fit.FILL:
        return min(across, width), min(down, height)
    return (width, height) if across > width or down > height else scaled


def _proportional(side: int, part: int, whole: int) -> int:
    """Return ``side`` × ``part`` / ``whole``, rounded half up, and at least 1."""
    return max(1, (2 * side * part + whole) // (2 * whole))
