"""Step: transparency is laid on a colour, where the result keeps none.

It comes before the resize: what is opaque can be averaged without mixing in the colour that hides behind
transparent pixels, the cause of dark fringes. (``thumbnail`` premultiplies by alpha for the same end, which
takes longer, and does not do so where only one of the two sides changes.)
"""

import pyvips

from vipsrv.pipeline.job import Job
from vipsrv.pipeline.kept_profile import colour_in
from vipsrv.pipeline.scale import webp_at_size
from vipsrv.pipeline.srgb import PROFILE, three_bands, to_srgb, transform_profile

_WHITE = {"srgb": 255, "b-w": 255, "rgb16": 65535, "grey16": 65535}
"""White in those spaces in which it is the same whatever the ICC profile."""


def lay_on_background(image: pyvips.Image, job: Job) -> pyvips.Image:
    """The picture without its alpha; as it is where it has none or keeps it."""
    if not job.header.info.has_alpha or job.background is None:
        return image
    if job.header.info.format == "webp":
        image = webp_at_size(job)
    white = _WHITE.get(image.interpretation)
    if job.background.lower() == "#ffffff" and white is not None:
        return three_bands(image.flatten(background=white), job)
    # The colour is meant in sRGB, so that the picture has to become that first.
    if image.get_typeof(PROFILE) and not job.keep_profile:
        image = transform_profile(image)
    image = to_srgb(image, job)
    colour = colour_in(image, job.background, own_profile=job.keep_profile)
    return three_bands(image.flatten(background=colour), job)
