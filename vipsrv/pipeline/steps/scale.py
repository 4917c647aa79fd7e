"""Resize an image to an exact size: enlarge it, or weight its colours by their alpha."""

import pyvips

from vipsrv.pipeline.plan import DecodePlan
from vipsrv.pipeline.steps.colours import transform_profile
from vipsrv.pipeline.steps.fast_resize import reduce_to, rotate_upright
from vipsrv.pipeline.vips.fields import PROFILE
from vipsrv.pipeline.vips.operations import shape


def scale_to(image: pyvips.Image, width: int, height: int) -> pyvips.Image:
    """Return the image in ``width`` × ``height`` pixels, reduced with Lanczos; unchanged if that is its size.

    Colours are weighted by alpha while they are averaged, so that the hidden colours of transparent pixels do
    not bleed into their neighbours. Raises ``pyvips.Error``.
    """
    if (image.width, image.height) == (width, height):
        return image
    if not image.hasalpha():
        return _resize(image, width, height)
    # Back to integers at once: resizing floats takes three times as long.
    weighted = image.premultiply().cast(image.format)
    return _resize(weighted, width, height).unpremultiply().cast(image.format)


def scale_with_alpha(image: pyvips.Image, decode: DecodePlan) -> pyvips.Image:
    """Return the image in exactly the plan's size, upright, with transparency. Raises ``pyvips.Error``.

    ``thumbnail`` is not used, because libvips 8.18 omits the weighting if only one of the two sides changes.
    """
    image = scale_to(image, *decode.stored_size)
    image = rotate_upright(image, decode.header)
    if image.get_typeof(PROFILE) and not decode.keep_profile:
        image = transform_profile(image)
    return image


def enlarge(image: pyvips.Image, width: int, height: int) -> pyvips.Image:
    """Enlarge the image to ``width`` × ``height`` pixels, bicubic; unchanged if that is its size.

    ``thumbnail`` and ``resize`` of libvips 8.18 also enlarge with ``affine``, but place the pixels half a
    pixel of the result too far to the left and top, and blur a side that does not change: 1.8 grey levels of
    mean difference to Pillow's bicubic for 640 × 480 to 800 × 600, here 0.04, in the same time.

    Raises ``pyvips.Error``.
    """
    own_width, own_height, *_ = shape(image)
    if (own_width, own_height) == (width, height):
        return image
    return enlarge_by(image, width / own_width, height / own_height, (width, height), "bicubic")


def enlarge_by(
    image: pyvips.Image, across: float, down: float, size: tuple[int, int], interpolator: str
) -> pyvips.Image:
    """Enlarge the image by two factors, and take ``size`` pixels of it from the left and top.

    Raises ``pyvips.Error``.
    """
    return image.affine(
        [across, 0, 0, down],
        interpolate=pyvips.Interpolate.new(interpolator),
        # The centre of a pixel is half a pixel from its corner in both images.
        odx=(across - 1) / 2,
        ody=(down - 1) / 2,
        oarea=[0, 0, *size],
        extend="copy",
        premultiplied=True,
    )


def _resize(image: pyvips.Image, width: int, height: int) -> pyvips.Image:
    return enlarge(reduce_to(image, width, height), width, height)
