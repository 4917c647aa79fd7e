"""One picture in, one picture out: the list of steps, and one job through it."""

from dataclasses import dataclass

import pyvips

from vipsrv.errors import CorruptImage
from vipsrv.options import ImageInfo, OutputInfo, ResizeOptions
from vipsrv.pipeline import libvips
from vipsrv.pipeline.background import lay_on_background
from vipsrv.pipeline.cost import admit
from vipsrv.pipeline.encode import encode
from vipsrv.pipeline.header import read_header
from vipsrv.pipeline.job import Job
from vipsrv.pipeline.limits import Limits, check_limits
from vipsrv.pipeline.offered import exact_size
from vipsrv.pipeline.shrink import shrink
from vipsrv.pipeline.srgb import three_bands, to_srgb
from vipsrv.pipeline.stopping import Watch, stop_when
from vipsrv.pipeline.upload import Upload

STEPS = (lay_on_background, shrink, to_srgb, three_bands)
"""What is done to a picture between its header and its encoding, in this order."""

_WORTH_WATCHING = 2_000_000
"""Pixels of the source or the result from which on a job is worth stopping in the middle: below it is over
sooner (about 20 ms) than a stop would be noticed."""

_GOES_ON_AFTER_ERRORS = {"tiff"}
"""Formats of which libvips 8.18 reports an error and goes on with a blank, ``fail_on`` or not: a tile that is
cut off or damaged. (A JPEG's complaints are libjpeg's warnings, most of them of pictures that look right.)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was read, what was made, and its bytes."""

    source: ImageInfo
    output: OutputInfo
    data: bytes


def resize(
    upload: Upload,
    options: ResizeOptions,
    *,
    limits: Limits,
    quality: int,
    watch: Watch | None = None,
    seconds: float | None = None,
    heavy_ok: bool = True,
) -> Result:
    """Run one job; ``quality`` (1–100) is used where the options name none. ``seconds`` is the time it has;
    a job that takes more memory than ``cost.LIGHT`` raises ``NeedsHeavyLane`` where it is not ``heavy_ok``.

    Raises ``BadRequest``, ``UnsupportedFormat``, ``TooLarge``, ``CorruptImage``, or the reason to stop that
    ``watch`` gave.
    """
    libvips.forget_errors()
    width, height = exact_size(options)
    header = read_header(upload)
    check_limits(header.info, width, height, options.format, limits)
    admit(upload, header, (options,), limits=limits, seconds=seconds, heavy_ok=heavy_ok)
    job = Job(
        upload=upload,
        header=header,
        width=width,
        height=height,
        background=options.background,
        quality=options.quality or quality,
    )
    try:
        data = _run(job, watch)
    except pyvips.Error as error:
        stop = watch() if watch else None
        if stop is not None:
            raise stop from error
        raise _corrupt(job, libvips.reason(error)) from error
    complaint = libvips.complaint() if header.info.format in _GOES_ON_AFTER_ERRORS else None
    if complaint:
        raise _corrupt(job, complaint)
    output = OutputInfo(
        width=width, height=height, format=options.format.value, quality=job.quality, size=len(data)
    )
    return Result(source=header.info, output=output, data=data)


def _run(job: Job, watch: Watch | None) -> bytes:
    image = job.header.image
    for step in STEPS:
        image = step(image, job)
    if watch is not None and _is_long(job):
        stop_when(image, watch)
    return encode(image, job)


def _corrupt(job: Job, reason: str) -> CorruptImage:
    return CorruptImage(f"this {job.header.info.format} cannot be decoded: {reason}")


def _is_long(job: Job) -> bool:
    source = job.header.info
    return max(source.width * source.height, job.width * job.height) >= _WORTH_WATCHING
