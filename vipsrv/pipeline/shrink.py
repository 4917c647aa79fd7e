"""Step: decode and resize, upright.

What is 8-bit grey or RGB goes the direct way, a large TIFF its own. For all else there is ``thumbnail``: it
decodes no more than the target needs (a WebP at any size, a TIFF from a level of its pyramid), reads row
after row, turns the picture by its EXIF orientation, so that width and height are what the viewer sees, and
converts from the ICC profile after the resize, where it is least work. Neither makes a picture larger: that
comes last.
"""

import pyvips

from vipsrv.pipeline import layout
from vipsrv.pipeline.direct import FIRST_TURNED, reduce_directly
from vipsrv.pipeline.enlarge import enlarge
from vipsrv.pipeline.giant import reduce_giant
from vipsrv.pipeline.job import Job
from vipsrv.pipeline.scale import shrink_with_alpha
from vipsrv.pipeline.srgb import PROFILE, transform_profile


def shrink(image: pyvips.Image, job: Job) -> pyvips.Image:
    """Exactly the job's width × height. Raises ``pyvips.Error``."""
    if job.keeps_alpha:
        return shrink_with_alpha(image, job)
    info = job.header.info
    seen = (info.width, info.height) if info.orientation < FIRST_TURNED else (info.height, info.width)
    width, height = min(job.width, seen[0]), min(job.height, seen[1])
    has_profile = not job.keep_profile and bool(image.get_typeof(PROFILE))
    reduced = reduce_giant(image, job, width, height)
    if reduced is None:
        reduced = reduce_directly(image, job, width, height)
    if reduced is None:
        reduced = _by_thumbnail(image, job, width, height, has_profile=has_profile)
    elif has_profile:
        reduced = transform_profile(reduced)
    return enlarge(reduced, job.width, job.height)


def _by_thumbnail(
    image: pyvips.Image, job: Job, width: int, height: int, *, has_profile: bool
) -> pyvips.Image:
    if not has_profile:
        return _thumbnail(image, job, width, height)
    try:
        return _thumbnail(image, job, width, height, export_profile="srgb")
    except pyvips.Error:
        # A profile that is broken, or made for another kind of picture, is as good as none.
        return _thumbnail(image, job, width, height)


def _thumbnail(image: pyvips.Image, job: Job, width: int, height: int, **profile: str) -> pyvips.Image:
    size = {"height": height, "size": "force"}
    if image is not job.header.image or job.page or job.header.is_own or _has_pages(job):
        # What was opened already: thumbnail takes pages of which each has half the size for a pyramid.
        return image.thumbnail_image(width, **size, **profile)
    # A truncated or corrupt picture is an error and not half a result. That goes in as the ``option_string``,
    # as all loaders take it: ``thumbnail`` of libvips 8.18 and older ignores ``fail_on`` (libvips #5195).
    how = {"option_string": f"fail-on={job.header.fail_on}", **size, **profile}
    if job.upload.memory is not None:
        # pyvips copies the buffer, which costs next to nothing for what is small enough to be in memory.
        return pyvips.Image.thumbnail_buffer(job.upload.memory, width, **how)
    return pyvips.Image.thumbnail_source(job.upload.source, width, **how)


def _has_pages(job: Job) -> bool:
    info = job.header.info
    return info.format == "tiff" and info.pages > 1 and not layout.tiff_is_pyramid(job.upload)
