"""Step: decode and resize in one, upright.

``thumbnail`` decodes no more than the target needs (a JPEG at 1/2, 1/4 or 1/8, a WebP at any size, a TIFF
from a level of its pyramid), reads row after row, turns the picture by its EXIF orientation, so that width
and height are what the viewer sees, and converts from the ICC profile after the resize, where it is least
work.
"""

import pyvips

from vipsrv.pipeline.job import Job
from vipsrv.pipeline.scale import shrink_with_alpha
from vipsrv.pipeline.srgb import PROFILE

FAIL_ON = "fail-on=error"
"""A truncated or corrupt picture is an error and not half a result. It goes in as the ``option_string``, as
all loaders take it: ``thumbnail`` of libvips 8.18 and older ignores ``fail_on`` itself (libvips #5195)."""


def shrink(image: pyvips.Image, job: Job) -> pyvips.Image:
    """Exactly the job's width × height. Raises ``pyvips.Error``."""
    if job.keeps_alpha:
        return shrink_with_alpha(image, job)
    if job.keep_profile or not image.get_typeof(PROFILE):
        return _thumbnail(image, job)
    try:
        return _thumbnail(image, job, output_profile="srgb")
    except pyvips.Error:
        # A profile that is broken, or made for another kind of picture, is as good as none.
        return _thumbnail(image, job)


def _thumbnail(image: pyvips.Image, job: Job, **profile: str) -> pyvips.Image:
    size = {"height": job.height, "size": "force"}
    if image is not job.header.image or job.page:
        # What was opened already; by itself thumbnail would take the pages of a file for a pyramid.
        return image.thumbnail_image(job.width, **size, **profile)
    how = {"option_string": FAIL_ON, **size, **profile}
    if job.upload.memory is not None:
        # pyvips copies the buffer, which costs next to nothing for what is small enough to be in memory.
        return pyvips.Image.thumbnail_buffer(job.upload.memory, job.width, **how)
    return pyvips.Image.thumbnail_source(job.upload.source, job.width, **how)
