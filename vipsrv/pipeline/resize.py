"""One picture in, one or several out: the list of steps, and one job through it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyvips

from vipsrv.errors import CorruptImage, InternalError, RequestError
from vipsrv.options import ImageInfo, OutputInfo, ResizeOptions
from vipsrv.pipeline import libvips
from vipsrv.pipeline.background import lay_on_background
from vipsrv.pipeline.cost import admit
from vipsrv.pipeline.encode import encode
from vipsrv.pipeline.header import read_header
from vipsrv.pipeline.job import Job
from vipsrv.pipeline.mixes import by_content
from vipsrv.pipeline.order import put_in_order
from vipsrv.pipeline.page import open_page
from vipsrv.pipeline.place import own_background, own_colours, own_metadata, place
from vipsrv.pipeline.plan import Plan, check_together, likely_shrink, make_job, make_plan
from vipsrv.pipeline.scale import scale_to
from vipsrv.pipeline.shrink import shrink
from vipsrv.pipeline.srgb import drop_extra_bands, to_srgb
from vipsrv.pipeline.stopping import Watch, stop_now_if, stop_when
from vipsrv.pipeline.threads import several_threads
from vipsrv.pipeline.upload import Upload
from vipsrv.worker_config import WorkerConfig

STEPS = (lay_on_background, shrink, put_in_order, to_srgb, drop_extra_bands)
"""What is done to a picture after its header was read, once for all results, in this order. Behind it the
picture is as large as the largest result needs."""

OUTPUT_STEPS = (own_colours, own_background, place, own_metadata)
"""What is done for each result, scaled to its own size, before its encoding, in this order."""

_WORTH_WATCHING = 2_000_000
"""Pixels of the source or the results from which on a job is worth stopping in the middle: below it is over
sooner (about 20 ms) than a stop would be noticed."""

_ENOUGH = 1.25
"""A result is made from a smaller one only where that has this many times its pixels on both sides. Widths of
1280, 960, 640 and 320, each from the one before, take 25 ms of CPU and have an SSIM of .998 to .999 against a
full decode resized with Pillow's Lanczos; all from the picture 1600 wide take 32 ms for the same SSIM. The
factor keeps a list of nearly equal sizes from being resized over and over: 799 from 800 loses .007 once."""

_GOES_ON_AFTER_ERRORS = {"tiff"}
"""Formats of which libvips 8.18 reports an error and goes on with a blank, ``fail_on`` or not: a tile that is
cut off or damaged. (A JPEG's complaints are libjpeg's warnings, most of them of pictures that look right.)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What was made, and its bytes."""

    info: OutputInfo
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was read, and what was made of it in the order in which it was asked for."""

    source: ImageInfo
    outputs: tuple[Output, ...]


def resize(
    upload: Upload,
    outputs: Sequence[ResizeOptions],
    *,
    config: WorkerConfig,
    watch: Watch | None = None,
    seconds: float | None = None,
    heavy_ok: bool = True,
    threads: int = 1,
) -> Result:
    """Run one job of one or more results; ``config`` has the limits and the default quality.
    ``seconds`` is the time it has; a job that is not light (see ``cost``) raises ``NeedsHeavyLane`` where it
    is not ``heavy_ok``. ``threads`` is how many may compute at a time.

    The picture is decoded once, and again only for each other ``page`` that is asked for.

    Raises ``BadRequest``, ``UnsupportedFormat``, ``TooLarge``, ``CorruptImage``, ``InternalError`` where a
    sound picture's result cannot be written, or the reason to stop that ``watch`` gave.
    """
    libvips.forget_errors()
    header = read_header(
        upload,
        tolerant=config.tolerate_truncated,
        shrink_for=lambda width, height: likely_shrink(outputs, width, height),
        watch=watch,
    )
    pages = {page: open_page(upload, header, page) for page in {options.page for options in outputs}}
    plans = [make_plan(options, pages[options.page], config) for options in outputs]
    check_together(plans, config)
    parts = [
        (pages[page], [options for options in outputs if options.page == page])
        for page in reversed(pages)  # as they are done
    ]
    cost = admit(upload, parts, config=config, seconds=seconds, heavy_ok=heavy_ok)
    # None takes more memory for itself than all of the job takes with one.
    threads = max(1, min(threads, config.job_memory // cost.memory))
    source = header.info
    made: dict[int, Output] = {}
    # What a page's decoder holds goes with its header.
    del header, parts
    while pages:
        page, page_header = pages.popitem()
        numbers = [number for number, plan in enumerate(plans) if plan.options.page == page]
        own_plans = [plans[number] for number in numbers]
        job = replace(make_job(upload, page_header, own_plans, config), threads=threads, watch=watch)
        with several_threads(threads):
            made |= zip(numbers, _run_checked(job, own_plans, watch), strict=True)
        del job, page_header
    return Result(source=source, outputs=tuple(made[number] for number in range(len(plans))))


def _run_checked(job: Job, plans: Sequence[Plan], watch: Watch | None) -> list[Output]:
    """Run the job; what libvips says of a picture becomes a refusal of it.

    Decoder and encoder work hand in hand, and either's failure is an error of the encoder's call. So whose
    it was is found out by decoding once more, with nothing behind it.
    """
    info = job.header.info
    try:
        outputs = _run(job, plans, watch)
    except pyvips.Error as error:
        stop_now_if(watch)
        is_sound = _decodes(job, plans, watch)
        stop_now_if(watch)
        if is_sound:
            raise InternalError(f"the result could not be written: {libvips.reason(error)}") from error
        raise _corrupt(job, libvips.reason(error)) from error
    complaint = libvips.complaint() if info.format in _GOES_ON_AFTER_ERRORS else None
    if complaint and job.header.fail_on != "none":
        raise _corrupt(job, complaint)
    return outputs


def _decodes(job: Job, plans: Sequence[Plan], watch: Watch | None) -> bool:
    """Whether the picture can be decoded to what the job needs; opened anew, for it is read only once."""
    try:
        header = read_header(job.upload, tolerant=job.header.fail_on == "none")
        job = replace(job, header=open_page(job.upload, header, job.page))
        _decoded(job, plans, watch).avg()  # reads every pixel and keeps none
    except (pyvips.Error, RequestError):
        return False
    return True


def _decoded(job: Job, plans: Sequence[Plan], watch: Watch | None) -> pyvips.Image:
    image = job.header.image
    for step in STEPS:
        image = step(image, job)
    if watch is not None and _is_long(job, plans):
        stop_when(image, watch)
    return image


def _run(job: Job, plans: Sequence[Plan], watch: Watch | None) -> list[Output]:
    image = _decoded(job, plans, watch)
    if len(plans) == 1 and not by_content(plans[0].options):
        return [_finish(image, plans[0], job, watch)]
    # Read more than once from here on.
    image = image.copy_memory()
    scaled = dict(_scaled(image, plans))
    outputs = []
    for number, plan in enumerate(plans):
        stop_now_if(watch)
        outputs.append(_finish(scaled[number], plan, job, watch))
    return outputs


def _scaled(image: pyvips.Image, plans: Sequence[Plan]) -> Iterator[tuple[int, pyvips.Image]]:
    """The picture in the size of each plan, by its number, the largest first: what is smaller is made from
    one before it.
    """
    made = [image]
    largest_first = sorted(enumerate(plans), key=lambda item: _area(item[1].placement.scaled), reverse=True)
    for number, plan in largest_first:
        width, height = plan.placement.scaled
        enough = (one for one in made if one.width >= _ENOUGH * width and one.height >= _ENOUGH * height)
        smallest = min(enough, key=lambda one: _area((one.width, one.height)), default=image)
        own = scale_to(smallest, width, height)
        if own is not smallest:
            own = own.copy_memory()
            made.append(own)
        yield number, own


def _finish(image: pyvips.Image, plan: Plan, job: Job, watch: Watch | None) -> Output:
    for step in OUTPUT_STEPS:
        image = step(image, plan, job)
    data, quality = encode(image, plan, watch)
    info = OutputInfo(
        width=plan.placement.width,
        height=plan.placement.height,
        format=plan.writer.format.value,
        quality=quality,
        size=len(data),
    )
    return Output(info=info, data=data)


def _corrupt(job: Job, reason: str) -> CorruptImage:
    return CorruptImage(f"this {job.header.info.format} cannot be decoded: {reason}")


def _is_long(job: Job, plans: Sequence[Plan]) -> bool:
    source = job.header.info
    results = sum(plan.pixels for plan in plans)
    return max(source.width * source.height, job.width * job.height, results) >= _WORTH_WATCHING


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
