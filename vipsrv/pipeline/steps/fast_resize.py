"""Resize 8-bit grey and RGB images, which nearly all uploads are, without ``thumbnail``.

``thumbnail`` takes 25 operations for any image, and opens it twice. This module needs only two operations, on
the image that was already opened for its header. It also decodes a JPEG no larger than the target needs,
while ``thumbnail`` keeps a reserve of a factor of two: libjpeg decodes at 1/2, 1/4 or 1/8 for a part of the
work, and by averaging, so that Lanczos only has to do the rest. (``python -m bench.tools.quality`` shows time
and similarity.)
"""

import pyvips

from vipsrv.pipeline.formats import jpeg
from vipsrv.pipeline.formats.jpeg.shrink import part_shrink, shrink_factor
from vipsrv.pipeline.header import Decoder, ImageHeader
from vipsrv.pipeline.orientation import Region
from vipsrv.pipeline.plan import DecodePlan
from vipsrv.pipeline.vips.fields import set_orientation
from vipsrv.pipeline.vips.operations import PreparedOperation, shape

_GREY_OR_RGB = {(1, "uchar", "b-w"), (3, "uchar", "srgb")}

# The gap makes reductions by more than four begin with an average, as in ``thumbnail``.
_reduce_rows = PreparedOperation("reducev", "in", "vshrink", gap=2.0)
_reduce_columns = PreparedOperation("reduceh", "in", "hshrink", gap=2.0)
_rotate = PreparedOperation("autorot", "in")


def reduce_fast(image: pyvips.Image, decode: DecodePlan, width: int, height: int) -> pyvips.Image | None:
    """Return the image in ``width`` × ``height`` pixels, upright, in its own colours; ``None`` for an image
    that needs ``thumbnail``.

    The size is the one that a viewer sees, and not larger than the image. Raises ``pyvips.Error``.
    """
    info, header = decode.header.info, decode.header
    # One that was corrected cannot be opened at another fraction.
    is_jpeg = info.format == jpeg.JPEG.name and header.decoder is Decoder.LIBVIPS
    if header.region is None and header.decoder is Decoder.LIBVIPS and image is header.image and not is_jpeg:
        reader = decode.libvips_reader
        if reader is not None and not reader.decodes_whole:
            return None
    if not is_simple(image):
        return None
    width, height = info.swap_if_rotated(width, height)
    shrink = shrink_factor((info.width, info.height), (width, height)) if is_jpeg else 1
    if header.region is not None:
        if is_jpeg and header.decoder is Decoder.LIBVIPS:
            image = _open_part(image, decode, header.region, (width, height))
    elif shrink != header.shrink:
        # It was chosen before the EXIF orientation was known.
        image = jpeg.open_at[header.fail_on](decode.upload.source, shrink)
    return rotate_upright(reduce_to(image, width, height), header)


def _open_part(
    image: pyvips.Image, decode: DecodePlan, region: Region, target: tuple[int, int]
) -> pyvips.Image:
    """Return the region of a JPEG as small as it may be decoded; ``image`` has it at its full size."""
    whole = decode.header.source.info
    shrink = part_shrink((whole.width, whole.height), region, target)
    if shrink == 1:
        return image
    smaller = jpeg.open_at[decode.header.fail_on](decode.upload.source, shrink)
    left, top = round(region.left / shrink), round(region.top / shrink)
    right = min(smaller.width, round((region.left + region.width) / shrink))
    bottom = min(smaller.height, round((region.top + region.height) / shrink))
    return smaller.crop(left, top, right - left, bottom - top)


def reduce_to(image: pyvips.Image, width: int, height: int) -> pyvips.Image:
    """Reduce the image to ``width`` × ``height`` pixels; a side that is already smaller stays as it is.

    Raises ``pyvips.Error``.
    """
    own_width, own_height, *_ = shape(image)
    if own_height > height:
        image = _reduce_rows(image, own_height / height)
    if own_width > width:
        image = _reduce_columns(image, own_width / width)
    return image


def rotate_upright(image: pyvips.Image, header: ImageHeader) -> pyvips.Image:
    """Rotate the image by the orientation of its header. Raises ``pyvips.Error``, because it may be decoded
    here.
    """
    if header.info.orientation == 1:
        return image
    # Rotating reads from the bottom, or column by column, which a decoder cannot do: keep the small image.
    kept = image.copy_memory()
    if header.is_view:  # the file has another one
        kept = set_orientation(kept, header.info.orientation)
    return _rotate(kept)


def is_simple(image: pyvips.Image) -> bool:
    """Whether the image is 8-bit grey or RGB, and is not marked as high dynamic range."""
    return shape(image)[2:] in _GREY_OR_RGB and not image.get_typeof("cicp-transfer-characteristics")
