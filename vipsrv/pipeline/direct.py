"""Resizing without ``thumbnail``, for the pictures that nearly all requests bring.

What ``thumbnail`` does for any picture takes 25 operations and opens it twice; 8-bit grey or RGB needs two
operations, on the picture that was opened for its header already. And a JPEG is decoded no larger than the
target needs, where ``thumbnail`` keeps a factor of two to itself (``python -m bench.quality`` shows both, in
time and in likeness): libjpeg decodes at 1/2, 1/4 or 1/8 for a part of the work, and by averaging, so that
Lanczos has only the rest to do.
"""

import pyvips

from vipsrv.options import ImageInfo
from vipsrv.pipeline.calls import Call, shape
from vipsrv.pipeline.header import open_jpeg
from vipsrv.pipeline.job import Job

_SCALES = (8, 4, 2)
"""How often a JPEG can be halved while it is decoded, 1/8 being the most that libvips asks of libjpeg."""

_CUT_OFF = 0.25
"""Pixels of the result. libvips drops the last rows and columns of a JPEG that fill no whole pixel of the
smaller decode: 7 of 1,607 columns at 1/8. What is left is stretched over the result, whose edge is then off
by as much; half a pixel already costs 0.02 of SSIM."""

_WHOLE = {"png", "gif"}
"""Formats besides JPEG of which ``thumbnail`` decodes no less than the whole, either."""

FIRST_TURNED = 5
"""The EXIF orientations from this one on swap width and height."""

_GREY_OR_RGB = {(1, "uchar", "b-w"), (3, "uchar", "srgb")}

# The gap makes a reduction by more than four an average first, as ``thumbnail`` has it.
_reduce_rows = Call("reducev", "in", "vshrink", gap=2.0)
_reduce_columns = Call("reduceh", "in", "hshrink", gap=2.0)
_turn = Call("autorot", "in")


def reduce_directly(image: pyvips.Image, job: Job, width: int, height: int) -> pyvips.Image | None:
    """The picture in ``width`` × ``height`` pixels, upright, its colours as they are; ``None`` for a kind of
    picture that needs ``thumbnail``.

    The size is that of the viewer and not above the picture's own. Raises ``pyvips.Error``.
    """
    info = job.header.info
    by_thumbnail = (
        image is job.header.image and not job.header.is_own and info.format not in {"jpeg", *_WHOLE}
    )
    if by_thumbnail or not is_simple(image):
        return None
    if info.orientation >= FIRST_TURNED:
        width, height = height, width
    scale = jpeg_scale(info, width, height) if info.format == "jpeg" else 1
    if scale != job.header.shrink:
        # Expected before EXIF's orientation was known.
        image = open_jpeg[job.header.fail_on](job.upload.source, scale)
    return upright(reduce_to(image, width, height), info)


def jpeg_scale(info: ImageInfo, width: int, height: int) -> int:
    """At one over how much a JPEG is decoded to be reduced to ``width`` × ``height``, both not turned."""
    factors = (info.width / width, info.height / height)
    for scale in _SCALES:
        off = max(info.width % scale / factors[0], info.height % scale / factors[1])
        # Up to half of the factor it is what thumbnail does, and as good; above it must be better.
        if scale <= min(factors) / 2 or (scale <= min(factors) and off <= _CUT_OFF):
            return scale
    return 1


def reduce_to(image: pyvips.Image, width: int, height: int) -> pyvips.Image:
    """The picture with ``width`` × ``height`` pixels; a side that is no larger than that stays as it is.

    Raises ``pyvips.Error``.
    """
    own_width, own_height, *_ = shape(image)
    if own_height > height:
        image = _reduce_rows(image, own_height / height)
    if own_width > width:
        image = _reduce_columns(image, own_width / width)
    return image


def upright(image: pyvips.Image, info: ImageInfo) -> pyvips.Image:
    """The picture as its EXIF orientation says. Raises ``pyvips.Error``: here it may be decoded."""
    if info.orientation == 1:
        return image
    # Turning reads it from below or column by column, which a decoder cannot: hold the small picture.
    return _turn(image.copy_memory())


def is_simple(image: pyvips.Image) -> bool:
    """Whether it is 8-bit grey or RGB, and no high dynamic range in disguise."""
    return shape(image)[2:] in _GREY_OR_RGB and not image.get_typeof("cicp-transfer-characteristics")
