"""The fraction at which a JPEG is decoded: 1/2, 1/4 or 1/8 if that is enough for the target."""

from typing import NamedTuple

from vipsrv.pipeline.orientation import Region

SHRINKS = (8, 4, 2)
"""The fractions at which a JPEG can be decoded; 1/8 is the smallest that libvips uses."""

MAX_EDGE = 1 / 16
"""Pixels of the result that the edge may be off by. The last columns and rows may not fill a whole pixel of
the smaller decode. libvips drops them, and stretches the rest; libjpeg-turbo averages them with the columns
that the encoder added. Either way a thin border becomes thinner or thicker: 7 of 407 columns at 1/8 are most
of a pixel of a result 50 wide. (docs/decisions/0056-flat-images-and-edges.md)"""

_MAX_CUT_OFF = 0.25
"""The same for an image that is too large to be decoded further than needed. Half a pixel costs 0.02 of
SSIM."""

_MAX_CUT_OFF_OF_SIDE = 1 / 64
"""Part of a side that may be cut off: 3 of 11 rows at 1/4 are a quarter of the image. 1/64 changes the mean
of a gradient over the whole side by at most two grey levels."""

_MAX_EDGE_OF_PART = 0.125
"""Pixels of the result by which an edge of a part may be off."""

_NEARLY = 0.995
"""Part of the target that a smaller decode must have. 1599 columns at 1/2 are 799.5 and enough for 800; the
whole decode would take twice as long."""

_MAX_PADDING = 1 / 64
"""Part of a side that may be padding of the encoder in the smaller decode: of 11 rows at 1/8 the last 3 would
count as 8."""

_MAX_DIRECT_SOURCE = 64_000_000
"""Pixels of an image that libjpeg-turbo may decode in one piece. The job cannot be stopped during that time:
0.2 s, three times that for a progressive one."""

_MAX_DIRECT_PIXELS = 4_000_000
"""Pixels of the smaller decode, which is in memory as a whole."""

_RGB_BYTES = 3


def shrink_factor(size: tuple[int, int], target: tuple[int, int]) -> int:
    """Return the shrink factor (1, 2, 4, 8) at which libvips decodes a JPEG of this stored (unrotated)
    ``size`` to reduce it to ``target``.
    """
    factors = (size[0] / target[0], size[1] / target[1])
    least = min(factors)
    is_large = size[0] * size[1] > _MAX_DIRECT_SOURCE
    for shrink in SHRINKS:
        if shrink > least:
            continue
        cut_off = max(size[0] % shrink / factors[0], size[1] % shrink / factors[1])
        # Of a large image ``thumbnail`` cuts off as much.
        is_right = cut_off <= MAX_EDGE or (is_large and (shrink <= least / 2 or cut_off <= _MAX_CUT_OFF))
        if is_right and keeps_edges(size, shrink):
            return shrink
    return 1


class DirectShrink(NamedTuple):
    """The shrink factors (1, 2, 4, 8) at which libjpeg-turbo decodes a JPEG into memory."""

    first: int
    """The largest that the target allows."""

    bordered: int
    """The one for an image with a border, which ``first`` would make thinner or thicker."""


def direct_shrink(
    size: tuple[int, int], target: tuple[float, float], part: tuple[int, int] | None = None
) -> DirectShrink | None:
    """Return how libjpeg-turbo decodes a JPEG of this stored ``size`` into memory to reduce it, or a ``part``
    of it with this size, to ``target``; ``None`` if the image must stream through libvips instead.
    """
    wanted = size if part is None else part
    if wanted[0] < target[0] or wanted[1] < target[1]:
        return None

    def is_enough(shrink: int) -> bool:
        return all(
            one / shrink >= needed * _NEARLY and -side % shrink <= side * _MAX_PADDING
            for side, one, needed in zip(size, wanted, target, strict=True)
        )

    first = next(filter(is_enough, SHRINKS), 1)
    if not _is_direct(size, first):
        return None
    scales = target[0] / wanted[0], target[1] / wanted[1]
    bordered = first
    while bordered > 1 and _edge_error(size, scales, bordered) > MAX_EDGE:
        bordered //= 2
    return DirectShrink(first, bordered if _is_direct(size, bordered) else first)


def _edge_error(size: tuple[int, int], scales: tuple[float, float], shrink: int) -> float:
    """The most by which a border of one column or row becomes thicker, in pixels of the result."""
    return max(thicker(size[0], shrink) * scales[0], thicker(size[1], shrink) * scales[1])


def thicker(side: int, shrink: int) -> float:
    """Return by how many pixels a border of one pixel at the end of ``side`` becomes thicker if libjpeg-turbo
    decodes at 1 / ``shrink``; wider borders change less.

    The last pixel of the smaller decode is the mean of the rest of the columns and of copies of the last one.
    """
    rest = side % shrink
    return (shrink - rest) * (rest - 1) / shrink if rest else 0.0


def part_shrink(size: tuple[int, int], part: Region, target: tuple[int, int]) -> int:
    """Return the shrink factor for decoding a JPEG of this ``size`` to reduce a ``part`` of it to ``target``.

    The edges of the part must be nearly those of pixels of the smaller decode.
    """
    factors = part.width / target[0], part.height / target[1]
    edges = (
        (part.left, factors[0]),
        (part.left + part.width, factors[0]),
        (part.top, factors[1]),
        (part.top + part.height, factors[1]),
    )
    for shrink in SHRINKS:
        if shrink > min(factors) or not keeps_edges(size, shrink):
            continue
        off = max(abs(edge - round(edge / shrink) * shrink) / factor for edge, factor in edges)
        if off <= _MAX_EDGE_OF_PART:
            return shrink
    return 1


def direct_memory(decoded: float, reduced: float) -> float:
    """Return the bytes that libjpeg-turbo's ``decoded`` pixels take until they are ``reduced`` to so many."""
    # Three copies while the decoded pixels are handed on. Later one of them, an intermediate one of at most
    # the same size, and two of the reduced pixels, for which malloc finds freed memory only in part.
    return _RGB_BYTES * max(3 * decoded, 2.5 * decoded + 2 * reduced)


def _is_direct(size: tuple[int, int], shrink: int) -> bool:
    pixels = size[0] * size[1]
    return pixels <= min(_MAX_DIRECT_SOURCE, _MAX_DIRECT_PIXELS * shrink**2)


def thumbnail_shrink(size: tuple[int, int], target: tuple[int, int]) -> int:
    """Return the shrink factor that ``thumbnail`` uses: at most half of the reduction."""
    factor = min(size[0] / target[0], size[1] / target[1]) / 2
    return next((shrink for shrink in SHRINKS if shrink <= factor), 1)


def keeps_edges(size: tuple[int, int], shrink: int) -> bool:
    """Whether the rows and columns that are cut off at this shrink factor are a small part of both sides."""
    width, height = size
    return width % shrink <= width * _MAX_CUT_OFF_OF_SIDE and height % shrink <= height * _MAX_CUT_OFF_OF_SIDE
