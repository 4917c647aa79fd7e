"""Steps of each result: its colours, its background, and its part of the picture or its frame around it."""

import pyvips

from vipsrv.options import Fit, Keep, Position
from vipsrv.pipeline import xmp
from vipsrv.pipeline.job import Job
from vipsrv.pipeline.kept_profile import colour_in
from vipsrv.pipeline.mixes import by_content
from vipsrv.pipeline.plan import Plan
from vipsrv.pipeline.srgb import PROFILE, transform_profile

_THUMBNAIL = "jpeg-thumbnail-data"
"""Under this name libvips keeps the small picture that a camera puts into EXIF."""

_XMP = "xmp-data"
"""And under this one a packet of XMP."""

_HALVES = {
    Position.CENTRE: (1, 1),
    Position.TOP: (1, 0),
    Position.RIGHT_TOP: (2, 0),
    Position.RIGHT: (2, 1),
    Position.RIGHT_BOTTOM: (2, 2),
    Position.BOTTOM: (1, 2),
    Position.LEFT_BOTTOM: (0, 2),
    Position.LEFT: (0, 1),
    Position.LEFT_TOP: (0, 0),
}
"""Position → how much of the room that is left lies to the left and above, in halves."""


def own_colours(image: pyvips.Image, plan: Plan, job: Job) -> pyvips.Image:
    """sRGB, where the decode kept the source's profile for another result."""
    return transform_profile(image) if job.keep_profile and not plan.keep_profile else image


def own_background(image: pyvips.Image, plan: Plan, job: Job) -> pyvips.Image:
    """No transparency, where the decode kept it for another result."""
    if not job.keeps_alpha or plan.background is None:
        return image
    return image.flatten(background=colour_in(image, plan.background, own_profile=plan.keep_profile))


def place(image: pyvips.Image, plan: Plan, _job: Job) -> pyvips.Image:
    """Cut (``cover``) or framed (``contain``). The frame is opaque, also where transparency is kept."""
    placement, options = plan.placement, plan.options
    width, height = placement.width, placement.height
    if (width, height) == placement.scaled:
        return image
    if options.fit is Fit.COVER and by_content(options):
        return image.smartcrop(width, height, interesting=options.position.value)
    halves_left, halves_above = _HALVES[options.position]
    across, down = placement.scaled
    left, above = abs(width - across) * halves_left // 2, abs(height - down) * halves_above // 2
    if options.fit is Fit.COVER:
        return image.crop(left, above, width, height)
    colour = colour_in(image, options.background, own_profile=plan.keep_profile)
    if image.hasalpha():
        colour.append(255.0)
    return image.embed(left, above, width, height, extend="background", background=colour)


def own_metadata(image: pyvips.Image, plan: Plan, _job: Job) -> pyvips.Image:
    """No profile but the one that the pixels are in, and no picture of how it was before.

    The orientation has been applied: libvips took its tag away then, and writes 1 into what is kept of EXIF.
    XMP may say it once more.
    """
    if plan.options.keep is Keep.NONE:
        return image
    image = image.copy()
    for name in (_THUMBNAIL,) if plan.keep_profile else (_THUMBNAIL, PROFILE):
        if image.get_typeof(name):
            image.remove(name)
    if plan.options.keep is Keep.ALL and image.get_typeof(_XMP):
        packet = xmp.upright(image.get(_XMP))
        if packet is None:
            image.remove(_XMP)
        else:
            image.set_type(pyvips.GValue.blob_type, _XMP, packet)
    return image
