"""Step: decode and resize, upright.

``stated_colours`` handles colours that the file states by numbers, ``fast_resize`` 8-bit grey and RGB,
``giant_tiff`` a large TIFF. All others go through ``thumbnail``,
which decodes no more than the target needs (a TIFF from a level of its pyramid), reads
row by row, rotates the image by its EXIF orientation, and converts from the ICC profile after the resize,
where it is the least work. None of these enlarges the image; that is done last.
"""

import pyvips

from vipsrv.pipeline.formats import jpeg
from vipsrv.pipeline.formats.jpeg.shrink import shrink_factor, thumbnail_shrink
from vipsrv.pipeline.formats.tiff import TIFF
from vipsrv.pipeline.formats.tiff.layout import is_pyramid
from vipsrv.pipeline.header import Decoder
from vipsrv.pipeline.plan import DecodePlan
from vipsrv.pipeline.steps.colours import transform_profile
from vipsrv.pipeline.steps.fast_resize import reduce_fast
from vipsrv.pipeline.steps.giant_tiff import reduce_giant
from vipsrv.pipeline.steps.scale import enlarge, scale_with_alpha
from vipsrv.pipeline.steps.scaled_jpeg import decode_scaled
from vipsrv.pipeline.steps.stated_colours import resize_stated
from vipsrv.pipeline.vips.fields import PROFILE, SEQUENTIAL, set_orientation, with_metadata


def shrink(image: pyvips.Image, decode: DecodePlan) -> pyvips.Image:
    """Return the image in exactly the plan's size. Raises ``pyvips.Error``."""
    if decode.header.colours is not None:
        reduced = resize_stated(image, decode, decode.header.colours)
    elif decode.keeps_alpha:
        reduced = scale_with_alpha(image, decode)
    else:
        reduced = _without_alpha(image, decode)
    # The file of a view may have another orientation than the view, which has been applied.
    return set_orientation(reduced, 1) if decode.header.is_view else reduced


def _without_alpha(image: pyvips.Image, decode: DecodePlan) -> pyvips.Image:
    own_width, own_height = decode.header.info.upright_size
    wanted = decode.upright_size
    width, height = min(wanted[0], own_width), min(wanted[1], own_height)
    has_profile = not decode.keep_profile and bool(image.get_typeof(PROFILE))
    reduced = reduce_giant(image, decode, width, height)
    if reduced is None:
        reduced = _from_pixels(image, decode, width, height)
    if reduced is None:
        reduced = reduce_fast(image, decode, width, height)
    if reduced is None:
        reduced = _by_thumbnail(image, decode, width, height, has_profile=has_profile)
    elif has_profile:
        reduced = transform_profile(reduced)
    return enlarge(reduced, *wanted)


def _from_pixels(image: pyvips.Image, decode: DecodePlan, width: int, height: int) -> pyvips.Image | None:
    pixels = decode_scaled(decode, width, height)
    if pixels is None:
        return None
    reduced = with_metadata(pixels.to_libvips(), image, upright=True)
    reduced.remove(SEQUENTIAL)
    return reduced


def _by_thumbnail(
    image: pyvips.Image, decode: DecodePlan, width: int, height: int, *, has_profile: bool
) -> pyvips.Image:
    if not has_profile:
        return _thumbnail(image, decode, width, height)
    try:
        return _thumbnail(image, decode, width, height, export_profile="srgb")
    except pyvips.Error:
        # A profile that is corrupt, or made for another kind of image, is ignored.
        return _thumbnail(image, decode, width, height)


def _thumbnail(
    image: pyvips.Image, decode: DecodePlan, width: int, height: int, **profile: str
) -> pyvips.Image:
    header, size = decode.header, {"height": height, "size": "force"}
    if header.info.format == jpeg.JPEG.name and header.decoder is Decoder.LIBVIPS:
        stored, target = (header.info.width, header.info.height), header.info.swap_if_rotated(width, height)
        shrink = shrink_factor(stored, target)
        if not header.is_view and shrink < thumbnail_shrink(stored, target):
            # ``thumbnail`` would cut off too much of the edges.
            image = jpeg.open_at[header.fail_on](decode.upload.source, shrink)
            return image.thumbnail_image(width, **size, **profile)
        if header.is_view and header.region is None and shrink < header.shrink:
            # It was opened too small, before it was known that it is turned.
            image = jpeg.open_at[header.fail_on](decode.upload.source, shrink)
            image = set_orientation(image, header.info.orientation)
    is_reopenable = header.decoder is Decoder.LIBVIPS and image is header.image and not decode.page
    is_reopenable &= not header.is_view
    if not is_reopenable or _has_unrelated_pages(decode):
        # Use the image that is open: thumbnail would take pages that halve in size for a pyramid.
        return image.thumbnail_image(width, **size, **profile)
    # A truncated or corrupt image must give an error and not half a result. ``thumbnail`` of libvips 8.18 and
    # older ignores ``fail_on`` (libvips #5195), but passes an ``option_string`` on to the loader.
    arguments = {"option_string": f"fail-on={header.fail_on}", **size, **profile}
    if decode.upload.memory is not None:
        # pyvips copies the buffer, which costs almost nothing: uploads in memory are small.
        return pyvips.Image.thumbnail_buffer(decode.upload.memory, width, **arguments)
    return pyvips.Image.thumbnail_source(decode.upload.source, width, **arguments)


def _has_unrelated_pages(decode: DecodePlan) -> bool:
    info = decode.header.info
    return info.format == TIFF.name and info.pages > 1 and not is_pyramid(decode.upload)
