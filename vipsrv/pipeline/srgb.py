"""Steps: 8-bit sRGB, whatever the picture was, and no more than its three bands and alpha."""

import pyvips

from vipsrv.pipeline import libvips
from vipsrv.pipeline.calls import shape
from vipsrv.pipeline.job import Job
from vipsrv.pipeline.profiles import is_srgb

PROFILE = libvips.PROFILE
"""Under this name libvips keeps an embedded ICC profile."""

_BANDS = 3


def to_srgb(image: pyvips.Image, _job: Job) -> pyvips.Image:
    """The picture as 8-bit sRGB, alpha included; no work where it is so already."""
    return image if _is_srgb(image) else image.colourspace("srgb")


def transform_profile(image: pyvips.Image) -> pyvips.Image:
    """The picture from its embedded profile to 8-bit sRGB; as it is where the profile is of no use.

    One that is 8-bit sRGB by its profile comes back with it, converted by nothing.
    """
    if _is_srgb(image) and is_srgb(image.get(PROFILE)):
        return image
    try:
        image = image.icc_transform("srgb", embedded=True, depth=8)
    except pyvips.Error:
        image = image.copy()
    image.remove(PROFILE)
    return image


def three_bands(image: pyvips.Image, _job: Job) -> pyvips.Image:
    """The first three bands: a TIFF may hold more, which are neither colour nor alpha."""
    return image.extract_band(0, n=_BANDS) if shape(image).bands > _BANDS else image


def drop_extra_bands(image: pyvips.Image, job: Job) -> pyvips.Image:
    """Three bands, and alpha where it is kept."""
    if not job.keeps_alpha:
        return three_bands(image, job)
    return image.extract_band(0, n=_BANDS + 1) if image.bands > _BANDS + 1 else image


def _is_srgb(image: pyvips.Image) -> bool:
    return shape(image)[3:] == ("uchar", "srgb")
