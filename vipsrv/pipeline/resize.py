"""Resize one image to one or several results: the list of steps, and one job through it."""

import traceback
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import pyvips

from vipsrv.errors import CorruptImage, InternalError, RequestError
from vipsrv.options import ImageInfo, OutputInfo, ResizeOptions
from vipsrv.pipeline.animate import render_frames
from vipsrv.pipeline.cost import admit
from vipsrv.pipeline.header import ImageHeader
from vipsrv.pipeline.limits import check_format
from vipsrv.pipeline.option_rules import is_by_content
from vipsrv.pipeline.plan import (
    DecodePlan,
    OutputPlan,
    check_together,
    likely_shrink,
    plan_decode,
    plan_output,
)
from vipsrv.pipeline.probe import open_frames, open_page, read_header
from vipsrv.pipeline.refusals import refusal
from vipsrv.pipeline.steps.background import flatten_alpha, flatten_result
from vipsrv.pipeline.steps.colours import bgr_to_rgb, drop_extra_bands, result_to_srgb, to_srgb
from vipsrv.pipeline.steps.crop_or_pad import add_border, crop_or_pad, with_place
from vipsrv.pipeline.steps.effects import EFFECT_STEPS
from vipsrv.pipeline.steps.encode import Encoded, encode
from vipsrv.pipeline.steps.jpeg_to_jpeg import resize_jpeg
from vipsrv.pipeline.steps.metadata import clean_metadata
from vipsrv.pipeline.steps.reopen import reopen
from vipsrv.pipeline.steps.rotate import rotate
from vipsrv.pipeline.steps.scale import scale_to
from vipsrv.pipeline.steps.shrink import shrink
from vipsrv.pipeline.trim import Terms, trimmed
from vipsrv.pipeline.turbo.codec import NeedsLibvips
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.view import View, open_view, part_of, view_of
from vipsrv.pipeline.vips.errors import forget_errors, logged_errors, reason, text_of
from vipsrv.pipeline.vips.stopping import StopCheck, stop_if_asked, stop_while_computing
from vipsrv.pipeline.vips.threads import use_threads
from vipsrv.worker_config import WorkerConfig

DECODE_STEPS = (reopen, flatten_alpha, shrink, bgr_to_rgb, to_srgb, drop_extra_bands, rotate)
"""The steps after the header was read, in this order, once for all results. After them the image has the size
that the largest result needs."""

OUTPUT_STEPS = (result_to_srgb, flatten_result, crop_or_pad, *EFFECT_STEPS, add_border, clean_metadata)
"""The steps for each result, in this order, between its scaling and its encoding."""

_MIN_WATCHED = 2_000_000
"""Pixels of source or results. A smaller job is over sooner (about 20 ms) than a request to stop would be
noticed."""

_UPLOAD_ERROR = "source: "
"""How libvips begins an error in reading the upload, such as a seek beyond its end."""

_MIN_RATIO = 1.25
"""A result is made from an already reduced image only if that has at least this many times its width and
height. Widths of 1280, 960, 640 and 320, each from the one before, take 25 ms of CPU and have an SSIM of .998
to .999 against a full decode resized with Pillow's Lanczos; all from the image 1600 wide take 32 ms for the
same SSIM. Without the factor, nearly equal sizes would be resized one from another: 799 from 800 loses
.007."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A result: its facts and its bytes."""

    info: OutputInfo
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The facts of the source, the outputs in the order of the request, and the ``pixels`` that the pipeline
    itself has asked for.
    """

    source: ImageInfo
    outputs: tuple[Output, ...]
    pixels: tuple[Output, ...] = ()


def resize(
    upload: Upload,
    outputs: Sequence[ResizeOptions],
    *,
    config: WorkerConfig,
    pixels: Sequence[ResizeOptions] = (),
    formats: Collection[str] | None = None,
    watch: StopCheck | None = None,
    seconds: float | None = None,
    heavy_ok: bool = True,
    threads: int = 1,
) -> Result:
    """Run one job of one or more results. ``config`` has the limits and the default quality.

    ``pixels`` are further results, which are no files (``pixels.PIXELS``). ``formats`` names those of image
    and results that are allowed; ``None`` means all. ``seconds`` is the time that the job has. If it is not
    light (see ``cost``) and not ``heavy_ok``, ``NeedsHeavyLane`` is raised. ``threads`` is how many may
    compute at a time. The image is decoded once, and once more for each other ``view.View`` of the results.

    Raises ``BadRequest``, ``UnsupportedFormat``, ``TooLarge``, ``CorruptImage``, ``InternalError`` if the
    result of a valid image cannot be written, or the reason to stop that ``watch`` returned.
    """
    forget_errors()
    files = len(outputs)
    outputs = (*outputs, *pixels)
    header = read_header(
        upload,
        tolerant=config.tolerate_truncated,
        shrink_for=lambda width, height: likely_shrink(outputs, width, height),
        watch=watch,
    )
    check_format(header.info.format, "the image", formats)
    of_outputs = [view_of(options) for options in outputs]
    different = sorted(dict.fromkeys(of_outputs), key=lambda view: view.page)
    trims = sum(view.trim is not None for view in different)
    terms = Terms(config=config, seconds=seconds, heavy_ok=heavy_ok, watch=watch, trims=trims)
    views = _open_views(upload, header, different, terms)
    plans = []
    for number, (options, view) in enumerate(zip(outputs, of_outputs, strict=True)):
        plans.append(plan_output(options, views[view], config, as_pixels=number >= files))
        if len(views) > 1:
            views[view].drop_built()
    for plan in plans[:files]:
        check_format(plan.writer.format.value, "the result", formats)
    check_together(plans, config)
    parts = [
        (views[view], [plan.options for plan, of in zip(plans, of_outputs, strict=True) if of == view])
        for view in reversed(views)  # in the order in which they are done
    ]
    cost = admit(upload, parts, config=config, seconds=seconds, heavy_ok=heavy_ok)
    # An additional thread takes at most as much memory as the whole job with one thread.
    threads = max(1, min(threads, config.job_memory // cost.memory))
    source = header.info
    done: dict[int, Output] = {}
    # The memory of a page's decoder is freed together with its header.
    del header, parts
    while views:
        view, view_header = views.popitem()
        numbers = [number for number, of in enumerate(of_outputs) if of == view]
        view_plans = [plans[number] for number in numbers]
        decode = replace(plan_decode(upload, view_header, view_plans, config), threads=threads, watch=watch)
        with use_threads(threads):
            done |= zip(numbers, run_page(decode, view_plans), strict=True)
        del decode, view_header
    made = tuple(done[number] for number in range(len(plans)))
    return Result(source=source, outputs=made[:files], pixels=made[files:])


def _open_views(
    upload: Upload, first: ImageHeader, views: Sequence[View], terms: Terms
) -> dict[View, ImageHeader]:
    """Open the header of each view. Each has a decoder of its own, because most can be read only once."""
    headers: dict[View, ImageHeader] = {}
    for number, view in enumerate(views):
        if number and not view.page:
            first = read_header(upload, tolerant=first.fail_on == "none", watch=terms.watch)
        page = (
            open_page(upload, first, view.page)
            if view.pages is None
            else open_frames(upload, first, view.pages)
        )
        header = open_view(upload, page, view)
        if view.trim is not None:
            others = sum(header.metadata_memory for header in headers.values())
            header = trimmed(upload, header, view, terms, others)
        headers[view] = header
    return headers


def run_page(decode: DecodePlan, plans: Sequence[OutputPlan]) -> list[Output]:
    """Make the results of one page, and turn an error of libvips into a refusal of the image.

    Decoder and encoder run together, and the failure of either is an error of the encoder's call. If its text
    does not tell which one failed, the image is decoded once more with nothing after it.
    """
    try:
        outputs = _run_either(decode, plans)
    except pyvips.Error as error:
        stop_if_asked(decode.watch)
        # The text first: the second decode replaces it. Both decodes at a time would take twice the memory.
        message = reason(error)
        traceback.clear_frames(error.__traceback__)
        # Of an animation only the encoder's errors come here.
        is_animation = decode.header.frames is not None
        decode.header.release()
        completed = None if is_animation else _run_completed(decode, plans, text_of(error))
        if completed is not None:
            return completed
        decode = replace(decode, direct=False)
        is_valid = is_animation or (not _is_of_decoder(decode, message) and _decodes(decode, plans))
        stop_if_asked(decode.watch)
        if is_valid:
            raise InternalError(f"the result could not be written: {message}") from error
        what = _cannot_be_decoded(decode)
        raise refusal(what, decode.upload, error, reader=decode.libvips_reader) from error
    reader = decode.libvips_reader
    if reader is not None and reader.continues_after_errors and decode.header.fail_on != "none":
        # Not for all formats: libjpeg logs warnings, most of them about images that look right.
        # A profile that could not be applied has logged an error, too, which is not one of the pixels.
        logged = next((error for error in logged_errors() if _is_of_decoder(decode, error)), None)
        if logged:
            raise CorruptImage(f"{_cannot_be_decoded(decode)}: {logged}")
    return outputs


def _run_completed(decode: DecodePlan, plans: Sequence[OutputPlan], text: str) -> list[Output] | None:
    """Make the results of a file that lacks nothing that any pixel needs; ``None`` if it lacks more."""
    reader = decode.libvips_reader
    if reader is None:
        return None
    try:
        upload = reader.completed(decode.upload, text, decode.watch)
        if upload is None:
            return None
        header = _opened_again(upload, decode)
        return _run_either(replace(decode, upload=upload, header=header), plans)
    except (pyvips.Error, RequestError):
        stop_if_asked(decode.watch)
        return None


def _opened_again(upload: Upload, decode: DecodePlan) -> ImageHeader:
    """Return the header of the same view of the same page, because an image can be read only once.

    Raises as ``read_header`` does.
    """
    first = read_header(
        upload, tolerant=decode.header.fail_on == "none", shrink_for=_whole, watch=decode.watch
    )
    header, page = decode.header, open_page(upload, first, decode.page)
    if not header.is_view:
        return page
    return part_of(upload, page, decode.page, header.region, header.info.orientation, header.angle)


def _whole(_width: int, _height: int) -> int:
    return 1


def _is_of_decoder(decode: DecodePlan, message: str) -> bool:
    """Whether an error's text begins as only those of the decoder do."""
    reader = decode.libvips_reader
    if reader is None:
        return False
    return message.startswith((_UPLOAD_ERROR, f"{reader.loader}:", *reader.error_beginnings))


def _decodes(decode: DecodePlan, plans: Sequence[OutputPlan]) -> bool:
    """Whether the image can be decoded as far as the job needs."""
    try:
        decode = replace(decode, header=_opened_again(decode.upload, decode))
        _decode(decode, plans).avg()  # reads every pixel and keeps none
    except (pyvips.Error, RequestError):
        return False
    return True


def _decode(decode: DecodePlan, plans: Sequence[OutputPlan]) -> pyvips.Image:
    image = decode.header.image
    for step in DECODE_STEPS:
        image = step(image, decode)
    if decode.watch is not None and _is_long(decode, plans):
        stop_while_computing(image, decode.watch)
    return image


def _run_either(decode: DecodePlan, plans: Sequence[OutputPlan]) -> list[Output]:
    """Make the results by libjpeg-turbo, if it decodes the image, or else by libvips."""
    try:
        return _run(decode, plans)
    except NeedsLibvips:
        return _run(replace(decode, direct=False), plans)


def _run(decode: DecodePlan, plans: Sequence[OutputPlan]) -> list[Output]:
    if decode.header.frames is not None:
        images = render_frames(decode, plans, _render)
        pages = decode.header.info.pages
        return [
            _output(plan, encode(image, plan, decode.watch), pages)
            for plan, image in zip(plans, images, strict=True)
        ]
    if len(plans) == 1:
        data = resize_jpeg(decode, plans[0])
        if data is not None:
            return [_output(plans[0], Encoded(data, plans[0].quality), decode.header.info.pages)]
    image = _decode(decode, plans)
    outputs = []
    for plan, scaled in zip(plans, _scale(image, plans), strict=True):
        stop_if_asked(decode.watch)
        outputs.append(_finish(scaled, plan, decode))
    return outputs


def _render(decode: DecodePlan, plans: Sequence[OutputPlan]) -> list[tuple[OutputPlan, pyvips.Image]]:
    """Make the image of each plan from one frame of an animation."""
    rendered = []
    for plan, image in zip(plans, _scale(_decode(decode, plans), plans), strict=True):
        placed = with_place(plan, image)
        rendered.append((placed, _apply(image, placed, decode)))
    return rendered


def _scale(image: pyvips.Image, plans: Sequence[OutputPlan]) -> list[pyvips.Image]:
    """Return the decoded image in the size of each plan."""
    if len(plans) == 1 and not is_by_content(plans[0].options):
        return [image]
    # From here on the image is read more than once.
    scaled = dict(_scale_to_each(image.copy_memory(), plans))
    return [scaled[number] for number in range(len(plans))]


def _scale_to_each(image: pyvips.Image, plans: Sequence[OutputPlan]) -> Iterator[tuple[int, pyvips.Image]]:
    """Yield the number of each plan and the image in its size, the largest first. Smaller images are made
    from larger ones.
    """
    made = [image]
    largest_first = sorted(enumerate(plans), key=lambda item: _area(item[1].geometry.scaled), reverse=True)
    for number, plan in largest_first:
        width, height = plan.geometry.scaled
        enough = (
            one for one in made if one.width >= _MIN_RATIO * width and one.height >= _MIN_RATIO * height
        )
        smallest = min(enough, key=lambda one: _area((one.width, one.height)), default=image)
        scaled = scale_to(smallest, width, height)
        if scaled is not smallest:
            scaled = scaled.copy_memory()
            made.append(scaled)
        yield number, scaled


def _apply(image: pyvips.Image, plan: OutputPlan, decode: DecodePlan) -> pyvips.Image:
    for step in OUTPUT_STEPS:
        image = step(image, plan, decode)
    return image


def _finish(image: pyvips.Image, plan: OutputPlan, decode: DecodePlan) -> Output:
    encoded = encode(_apply(image, plan, decode), plan, decode.watch)
    return _output(plan, encoded, decode.header.info.pages)


def _output(plan: OutputPlan, encoded: Encoded, pages: int) -> Output:
    frames: int | None = plan.frames
    if plan.frames > 1 and plan.writer.count_frames is not None:
        frames = plan.writer.count_frames(encoded.data)
    elif pages == 1 and plan.options.pages is None:
        frames = None
    info = OutputInfo(
        width=plan.geometry.width,
        height=plan.geometry.height,
        format=plan.writer.format.value,
        quality=encoded.quality,
        size=len(encoded.data),
        frames=frames,
        ssim=encoded.ssim,
    )
    return Output(info=info, data=encoded.data)


def _cannot_be_decoded(decode: DecodePlan) -> str:
    return f"this {decode.header.info.format} cannot be decoded"


def _is_long(decode: DecodePlan, plans: Sequence[OutputPlan]) -> bool:
    source = decode.header.info
    results = sum(plan.geometry.computed_pixels for plan in plans)
    return max(source.width * source.height, decode.width * decode.height, results) >= _MIN_WATCHED


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
