"""The fraction at which a JPEG is decoded: 1/2, 1/4 or 1/8 if that is enough for the target."""

SHRINKS = (8, 4, 2)
"""The fractions at which a JPEG can be decoded; 1/8 is the smallest that libvips uses."""

_MAX_CUT_OFF = 0.25
"""Pixels of the result. libvips drops the last rows and columns of a JPEG that do not fill a whole pixel of
the smaller decode: 7 of 1,607 columns at 1/8. The rest is stretched over the result, whose edge is then off
by that much; half a pixel already costs 0.02 of SSIM."""

_MAX_CUT_OFF_OF_SIDE = 1 / 64
"""Part of a side that may be cut off: 3 of 11 rows at 1/4 are a quarter of the image. 1/64 changes the mean
of a gradient over the whole side by at most two grey levels."""

_NEARLY = 0.995
"""Part of the target that a smaller decode must have. 1599 columns at 1/2 are 799.5 and enough for 800; the
whole decode would take twice as long."""

_MAX_PADDING = 1 / 64
"""Part of a side that may be padding of the encoder in the smaller decode: of 11 rows at 1/8 the last 3 would
count as 8."""

_MAX_DIRECT_SOURCE = 64_000_000
"""Pixels of an image that libjpeg-turbo may decode in one piece. The job cannot be stopped during that time:
0.2 s, three times that for a progressive one."""

_MAXDIRECT_PIXELS = 4_000_000
"""Pixels of the smaller decode, which is in memory as a whole."""

DIRECT_PIXEL = 9
"""Bytes of memory for each of these pixels: three copies of RGB while one is handed on."""


def shrink_factor(size: tuple[int, int], target: tuple[int, int]) -> int:
    """Return the shrink factor (1, 2, 4, 8) for decoding a JPEG of this stored (unrotated) ``size`` to reduce
    it to ``target``.
    """
    factors = (size[0] / target[0], size[1] / target[1])
    least = min(factors)
    for shrink in SHRINKS:
        if shrink > least:
            continue
        cut_off = max(size[0] % shrink / factors[0], size[1] % shrink / factors[1])
        # Up to half of the factor, ``thumbnail`` does the same. Above it, only a small edge may be cut off.
        if (shrink <= least / 2 or cut_off <= _MAX_CUT_OFF) and keeps_edges(size, shrink):
            return shrink
    return 1


def direct_shrink(size: tuple[int, int], target: tuple[float, float]) -> int | None:
    """Return the shrink factor (1, 2, 4, 8) at which libjpeg-turbo decodes a JPEG of this stored ``size``
    into memory to reduce it to ``target``; ``None`` if the image must stream through libvips instead.
    """
    if size[0] < target[0] or size[1] < target[1]:
        return None

    def is_enough(shrink: int) -> bool:
        return all(
            side / shrink >= needed * _NEARLY and -side % shrink <= side * _MAX_PADDING
            for side, needed in zip(size, target, strict=True)
        )

    shrink = next(filter(is_enough, SHRINKS), 1)
    return shrink if _is_direct(size, shrink) else None


def _is_direct(size: tuple[int, int], shrink: int) -> bool:
    pixels = size[0] * size[1]
    return pixels <= min(_MAX_DIRECT_SOURCE, _MAXDIRECT_PIXELS * shrink**2)


def thumbnail_shrink(size: tuple[int, int], target: tuple[int, int]) -> int:
    """Return the shrink factor that ``thumbnail`` uses: at most half of the reduction."""
    factor = min(size[0] / target[0], size[1] / target[1]) / 2
    return next((shrink for shrink in SHRINKS if shrink <= factor), 1)


def keeps_edges(size: tuple[int, int], shrink: int) -> bool:
    """Whether the rows and columns that are cut off at this shrink factor are a small part of both sides."""
    width, height = size
    return width % shrink <= width * _MAX_CUT_OFF_OF_SIDE and height % shrink <= height * _MAX_CUT_OFF_OF_SIDE
