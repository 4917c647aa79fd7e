"""Steps: bring every image to 8-bit sRGB, with three bands and alpha."""

import pyvips

from vipsrv.pipeline.icc_profile import is_srgb
from vipsrv.pipeline.plan import DecodePlan, OutputPlan
from vipsrv.pipeline.vips.fields import PROFILE
from vipsrv.pipeline.vips.operations import shape

_RGB_BANDS = 3


def bgr_to_rgb(image: pyvips.Image, decode: DecodePlan) -> pyvips.Image:
    """Reorder the bands of a bitmap that are still blue, green, red.

    This comes after the resize, which treats all bands alike. For 64 megapixels it takes 0.3 s, twice as long
    as all the rest; for the result it takes almost no time.
    """
    if not decode.header.is_bgr:
        return image
    ordered = image[2].bandjoin([image[1], image[0]])
    return ordered.copy(interpretation=image.interpretation)


def to_srgb(image: pyvips.Image, _decode: DecodePlan) -> pyvips.Image:
    """Convert the image, including its alpha, to 8-bit sRGB, unless it already is."""
    return image if _is_8_bit_srgb(image) else image.colourspace("srgb")


def drop_extra_bands(image: pyvips.Image, decode: DecodePlan) -> pyvips.Image:
    """Keep three bands, and alpha if the decode keeps it."""
    if not decode.keeps_alpha:
        return three_bands(image, decode)
    return image.extract_band(0, n=_RGB_BANDS + 1) if image.bands > _RGB_BANDS + 1 else image


def result_to_srgb(image: pyvips.Image, output: OutputPlan, decode: DecodePlan) -> pyvips.Image:
    """Convert to sRGB if the decode kept the source's profile for another result."""
    return transform_profile(image) if decode.keep_profile and not output.keep_profile else image


def grey_to_rgb(image: pyvips.Image) -> pyvips.Image:
    """Return a grey image, with or without alpha, as sRGB; another one unchanged."""
    if image.interpretation != "b-w":
        return image
    alpha = [image[1]] if image.hasalpha() else []
    return image[0].bandjoin([image[0], image[0], *alpha]).copy(interpretation="srgb")


def transform_profile(image: pyvips.Image) -> pyvips.Image:
    """Convert the image from its embedded profile to 8-bit sRGB. An invalid profile is removed.

    If the profile is sRGB and the image has 8 bits, the image is returned unchanged, with its profile.
    """
    if not needs_transform(image):
        return image
    try:
        image = image.icc_transform("srgb", embedded=True, depth=8)
    except pyvips.Error:
        image = image.copy()
    image.remove(PROFILE)
    return image


def needs_transform(image: pyvips.Image) -> bool:
    """Whether an image with a profile is not sRGB yet."""
    return not (_is_8_bit_srgb(image) and is_srgb(image.get(PROFILE)))


def three_bands(image: pyvips.Image, _decode: DecodePlan) -> pyvips.Image:
    """Return the first three bands: a TIFF may have more that are neither colour nor alpha."""
    return image.extract_band(0, n=_RGB_BANDS) if shape(image).bands > _RGB_BANDS else image


def _is_8_bit_srgb(image: pyvips.Image) -> bool:
    return shape(image)[3:] == ("uchar", "srgb")
