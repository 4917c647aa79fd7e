"""Predict the memory and time of a job from the headers alone, and refuse the job if they are too high.

The costs of a decoder or an encoder are in the file of its format (``formats``). This module has the policy:
the limits, the lanes, and how the parts add up. A job takes memory

- for its decode, some 2,000 rows that stream through libvips, for any height of the image;
- for the data that the decoder holds in addition: the coefficients of a progressive JPEG, the whole of an
  interlaced PNG, the canvas of a GIF, the planes of an AVIF, two rows of a TIFF's tiles, …;
- for the data that is kept between decode and encode, and the data that the encoder holds.

Memory is an upper bound: for large jobs at most about twice the memory that they really use. ``seconds`` is a
lower bound and rejects hopeless jobs; ``at_worst`` assumes full-size frames and chooses the lane. All figures
were measured by ``python -m bench.tools.cost`` with libvips 8.18.7 and one thread per worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vipsrv.errors import TooLarge
from vipsrv.options import BY_CONTENT, HIGHEST_QUALITY, ImageInfo, ResizeOptions
from vipsrv.pipeline import likeness
from vipsrv.pipeline.effects_cost import effects_cost
from vipsrv.pipeline.formats.base import MEGA, BuiltinReader, DecodeRequest, LibvipsReader
from vipsrv.pipeline.formats.registry import format_named
from vipsrv.pipeline.formats.writer import EncodeCost
from vipsrv.pipeline.geometry import fit
from vipsrv.pipeline.header import ImageHeader
from vipsrv.pipeline.limits import MAX_PAGES, too_many_pages
from vipsrv.pipeline.orientation import size_before_rotation, size_of_rotation
from vipsrv.pipeline.output_format import likely_writer
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.view import view_of
from vipsrv.worker_config import WorkerConfig

LIGHT = 64 << 20
"""Maximum bytes of memory of a light job. A job that takes more needs the heavy lane."""

LIGHT_SECONDS = 0.15
"""Maximum predicted CPU seconds of a light job. The real time is three to ten times as long."""

_MIN_EXPANDED = 100_000_000
"""Bytes: ``max_expansion`` does not apply to an image that decodes to no more than this in little time."""

_SMALL_MEMORY, _SMALL_SECONDS = 256 << 20, 0.3
"""Bytes and predicted CPU seconds: ``max_expansion`` does not apply to a job that takes no more. Flat images
take up to twice that time. (docs/decisions/0056-flat-images-and-edges.md)"""

_LONG_SECONDS = 1.5
"""Predicted CPU seconds: ``max_expansion`` applies to a job that takes longer, whatever it decodes to."""

_MIN_HOPELESS = 1.0
"""Seconds: a job that takes less is tried even if its deadline is nearer. A long wait in the queue must not
make a job fail with ``TooLarge``."""

_BASE = 6 << 20
"""Bytes that every job takes."""

_OUTPUT_ROWS = 700
"""Rows of the result that are in memory between resize and encoder."""

_STREAMED_ROWS = 2200
"""Maximum rows that stream through libvips."""

_EXTRA_ROWS = 800
"""Rows of intermediate copies, in addition to the rows of an image that has less than ``_STREAMED_ROWS``."""

_SECONDS_OF_ROTATION = 0.03
"""CPU seconds for a megapixel of an image that is rotated by an angle, at worst."""

_SECONDS_PER_FRAME = 0.0005
"""CPU seconds of the steps for another frame of an animation, besides its pixels."""

_TRIM_HELD = 100_000_000
"""Bytes: a view of no more is decoded once, to find its borders and to resize it, and kept in between. All
views of a job together keep no more."""

_RESULT = 1.5
"""Bytes per pixel of a result that waits for the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """``memory``: bytes of anonymous memory at the peak, in addition to those of an idle worker; ``results``:
    the part of them that the results take until the end. ``seconds``: the least CPU time; ``at_worst``: the
    same if everything that the header does not state is as expensive as possible.
    """

    memory: int
    results: int
    seconds: float
    at_worst: float


class NeedsHeavyLane(Exception):
    """The job was not started, because its ``memory`` in bytes, or its CPU ``seconds`` at worst, exceed those
    of a light job.
    """

    def __init__(self, memory: int, seconds: float) -> None:
        super().__init__(f"the job would take {memory} bytes of memory and {seconds:.2f} s of computing")
        self.memory = memory
        self.seconds = seconds


def admit(
    upload: Upload,
    pages: Sequence[tuple[ImageHeader, Sequence[ResizeOptions]]],
    *,
    config: WorkerConfig,
    seconds: float | None,
    heavy_ok: bool,
) -> Cost:
    """Return the cost of making the outputs of all ``pages``, one page after another.

    Raises ``TooLarge`` if the cost exceeds a limit or the job cannot be done in ``seconds``,
    ``NeedsHeavyLane`` if the job is heavy and ``heavy_ok`` is false, and ``CorruptImage``.
    """
    for header, _ in pages:
        _check_decode(upload, header.source)
    cost = predict_all(upload, pages)
    for header, _ in pages:
        _check_expansion(upload, header.source, cost, config)
    return _admit(cost, config=config, seconds=seconds, heavy_ok=heavy_ok)


def held_by_trim(header: ImageHeader, others: int = 0) -> int:
    """Return the bytes of a view that are kept after its borders were found; 0 if it is decoded again.
    ``others`` is what the headers of the job's other views hold by then.
    """
    size = header.info.width * header.info.height * header.source.pixel_bytes
    return size if size + others <= _TRIM_HELD else 0


def admit_trim(
    upload: Upload,
    header: ImageHeader,
    page: int,
    others: int,
    trims: int,
    *,
    config: WorkerConfig,
    seconds: float | None,
    heavy_ok: bool,
) -> None:
    """Check the cost of decoding a view of a ``page`` only to find its borders, while the headers of other
    views hold ``others`` bytes, and of doing so for all ``trims`` of the job. Raises as ``admit``.
    """
    _check_decode(upload, header.source)
    decode = _decode_view(upload, header, 1.0, page)
    copied = upload.size if upload.memory is not None else 0
    cost = Cost(
        memory=int(
            _BASE + copied + header.metadata_memory + others + decode.memory + held_by_trim(header, others)
        ),
        results=0,
        seconds=decode.seconds * trims,
        at_worst=decode.at_worst * trims,
    )
    _check_expansion(upload, header.source, cost, config)
    _admit(cost, config=config, seconds=seconds, heavy_ok=heavy_ok)


def _admit(cost: Cost, *, config: WorkerConfig, seconds: float | None, heavy_ok: bool) -> Cost:
    if cost.memory > config.job_memory:
        raise TooLarge(
            f"the job would take {cost.memory} bytes of memory; job-memory allows {config.job_memory}"
        )
    if seconds is not None and cost.seconds > max(seconds, _MIN_HOPELESS):
        raise TooLarge(
            f"the job would take at least {cost.seconds:.2f} s of computing; "
            f"its deadline allows {seconds:.2f} s"
        )
    if not heavy_ok and (cost.memory > LIGHT or cost.at_worst > LIGHT_SECONDS):
        raise NeedsHeavyLane(cost.memory, cost.at_worst)
    return cost


def _check_decode(upload: Upload, header: ImageHeader) -> None:
    if header.info.pages > MAX_PAGES:
        raise too_many_pages(header.info.pages)
    request = DecodeRequest(upload=upload, header=header.embedded or header)
    reader = _reader_of(request)
    if isinstance(reader, LibvipsReader):
        reader.check_decode(request)


def _check_expansion(upload: Upload, header: ImageHeader, cost: Cost, config: WorkerConfig) -> None:
    """Raise ``TooLarge`` for a few bytes that decode to many, unless that takes little memory and time."""
    if cost.memory <= _SMALL_MEMORY and cost.at_worst <= _SMALL_SECONDS:
        return
    decoded = _decoded_bytes(DecodeRequest(upload=upload, header=header.embedded or header))
    is_much = decoded > _MIN_EXPANDED or cost.at_worst > _LONG_SECONDS
    if is_much and decoded > config.max_expansion * upload.size:
        raise TooLarge(
            f"the image decodes to {decoded} bytes, {decoded // max(1, upload.size)} times its size of "
            f"{upload.size}; max-expansion allows {config.max_expansion} times"
        )


def _decoded_bytes(request: DecodeRequest) -> int:
    """Return the bytes of all pixels at their stored depth, such as a palette index or a bit."""
    header, reader = request.header, _reader_of(request)
    if isinstance(reader, BuiltinReader):
        return request.pixels
    bits = header.field("bits-per-sample") or 8 * header.sample_bytes
    bands = 1 if header.field("palette") else header.shape.bands
    return int(reader.coded_pixels(request) * bits * bands) // 8


def predict_all(upload: Upload, pages: Sequence[tuple[ImageHeader, Sequence[ResizeOptions]]]) -> Cost:
    """Return the cost of making the outputs of all ``pages``, one page after another. During each page the
    results of those before it are in memory, and the headers of all others.
    """
    memory = results = 0
    seconds = at_worst = 0.0
    headers = sum(header.metadata_memory for header, _ in pages)
    for header, outputs in pages:
        cost = predict(upload, header, outputs)
        memory = max(memory, cost.memory + headers - header.metadata_memory + results)
        results += cost.results
        seconds += cost.seconds
        at_worst += cost.at_worst
    return Cost(memory=memory, results=results, seconds=seconds, at_worst=at_worst)


def predict(upload: Upload, header: ImageHeader, outputs: Sequence[ResizeOptions]) -> Cost:
    """Return the cost of decoding a page and making all ``outputs`` of it."""
    info = header.info
    width, height = header.seen_size
    geometries = [fit(options, width, height) for options in outputs]
    sizes = [geometry.scaled for geometry in geometries]
    scale = max(max(across / width, down / height) for across, down in sizes)
    frames = header.frames
    count = 1 if frames is None else frames.count
    if frames is None:
        decode = _decode_view(upload, header, min(1.0, scale), view_of(outputs[0]).page)
    else:
        # Each frame is decoded at its full size.
        decode = _decode_view(upload, header, 1.0, frames.last)
    bands = 4 if info.has_alpha else 3
    areas = [across * down for across, down in sizes]
    held = _held_between(info, outputs, areas, (header.source.embedded or header.source).pixel_bytes)
    rotating = 0.0
    if header.angle:
        # The image before the rotation is in memory as a whole.
        turned = max(across for across, _ in sizes), max(down for _, down in sizes)
        across, down = size_before_rotation(info.upright_size, header.seen_size, turned)
        held += across * down * bands
        across, down = size_of_rotation(header.seen_size, turned)
        rotating = across * down / MEGA * _SECONDS_OF_ROTATION
    held += max(across for across, _ in sizes) * bands * _OUTPUT_ROWS
    results = [geometry.width * geometry.height for geometry in geometries]
    encoders = [_encode_cost(options, info, count) for options in outputs]
    encode = max(
        encoder.memory(area, alpha=info.has_alpha) for encoder, area in zip(encoders, results, strict=True)
    )
    results_memory = _RESULT * sum(results)
    copied = upload.size if upload.memory is not None else 0
    encode_seconds = [encoder.seconds * area / MEGA for encoder, area in zip(encoders, results, strict=True)]
    searching = sum(
        seconds * max_encodes(options) for seconds, options in zip(encode_seconds, outputs, strict=True)
    )
    for number, options in enumerate(outputs):
        if options.min_ssim is not None:
            comparing = max_encodes(options) * likeness.SECONDS_PER_MEGAPIXEL * results[number] / MEGA
            searching += comparing
            # The search takes all of its encodes, or all but one.
            encode_seconds[number] = (max_encodes(options) - 1) * encode_seconds[number] + comparing / 2
            pixel = likeness.MEMORY_PER_ALPHA_PIXEL if info.has_alpha else likeness.MEMORY_PER_PIXEL
            held += pixel * results[number]
    effects = [
        effects_cost(options, area, alpha=info.has_alpha)
        for options, area in zip(outputs, results, strict=True)
    ]
    encode += max(one.memory for one in effects)
    effects_seconds = sum(one.seconds for one in effects)
    # The last result exists only when its encoder is done.
    waiting = results_memory - _RESULT * results[-1]
    if count > 1:
        # The frames of all results are collected before they are encoded.
        # Those of one are copied when alpha is added to them.
        held += count * (sum(results) + max(results)) * bands
        waiting, results_memory = waiting * count, results_memory * count
        encode_seconds = [seconds * count for seconds in encode_seconds]
        searching, effects_seconds = searching * count, effects_seconds * count
    memory = _BASE + copied + header.metadata_memory + decode.memory + held + encode + waiting
    return Cost(
        memory=int(memory),
        results=int(results_memory),
        seconds=decode.seconds + (count - 1) * _SECONDS_PER_FRAME + sum(encode_seconds) + effects_seconds,
        at_worst=decode.at_worst
        + (count - 1) * _SECONDS_PER_FRAME
        + count * rotating
        + searching
        + effects_seconds,
    )


def max_encodes(options: ResizeOptions) -> int:
    """Return how many times a result may be encoded: ``max_bytes`` searches the highest quality that fits,
    ``min_ssim`` the lowest that looks well enough.
    """
    if options.max_bytes is None and options.min_ssim is None:
        return 1
    highest = options.quality or HIGHEST_QUALITY
    if options.min_ssim is not None:
        # Each one halves the range of those that may be the lowest.
        return highest.bit_length()
    # The first with the wanted quality; then each one halves the range of those that may fit.
    return 1 + (highest - 1).bit_length()


@dataclass(frozen=True, slots=True, kw_only=True)
class _DecodePart:
    """The decode's part of a ``Cost``."""

    memory: float
    seconds: float
    at_worst: float


def _decode_view(upload: Upload, header: ImageHeader, scale: float, page: int) -> _DecodePart:
    """Return the cost of decoding what a view needs of its page."""
    source = header.source.embedded or header.source
    cost = _decode_cost(DecodeRequest(upload=upload, header=source, scale=scale, page=page))
    if header.region is None:
        return cost
    # A part may be decoded at the full size, if its edges are not those of pixels of a smaller decode.
    whole = _decode_cost(DecodeRequest(upload=upload, header=source, page=page))
    share = header.region.width * header.region.height / (source.info.width * source.info.height)
    return _DecodePart(
        memory=max(cost.memory, whole.memory), seconds=cost.seconds * share, at_worst=whole.at_worst
    )


def _decode_cost(request: DecodeRequest) -> _DecodePart:
    info, pixel, sample = request.header.info, request.header.pixel_bytes, request.header.sample_bytes
    cost = _reader_of(request).decode_cost(request)
    width, height = cost.size or (float(info.width), float(info.height))
    rows = min(_STREAMED_ROWS, _EXTRA_ROWS + height) / _STREAMED_ROWS
    # Fewer rows of wider samples are held: 2,200 of 8 bits, 1,450 of 16, 1,075 of 32.
    stream = rows * width * (pixel / sample) * (1500 + 700 * sample)
    pixels = request.pixels if cost.pixels is None else cost.pixels
    seconds = pixels * pixel / MEGA * cost.seconds
    return _DecodePart(
        memory=cost.held + stream, seconds=seconds, at_worst=seconds * cost.frames + cost.parsing
    )


def _reader_of(request: DecodeRequest) -> LibvipsReader | BuiltinReader:
    reader = format_named(request.header.info.format).reader
    assert reader is not None, "an image that was opened has a reader"  # noqa: S101
    return reader


def _held_between(
    info: ImageInfo, outputs: Sequence[ResizeOptions], areas: Sequence[int], pixel: int
) -> float:
    """Return the bytes of resized images that are kept in memory: one that is rotated, one that is analysed
    before it is cropped, one that is encoded more than once, and all of several results.
    """
    bands = 4 if info.has_alpha else 3
    if len(outputs) > 1:
        # The decoded image, which is the largest result as well unless that is enlarged; and all others.
        decoded = min(max(areas), info.width * info.height)
        return (decoded + sum(areas) - (max(areas) if max(areas) == decoded else 0)) * bands
    (options,) = outputs
    kept = 0.0
    if info.orientation > 1:
        kept += areas[0] * pixel
    if options.position in BY_CONTENT:
        kept += areas[0] * (2 * bands if info.has_alpha else bands)
    if options.max_bytes is not None or options.min_ssim is not None:
        kept += areas[0] * bands
    return kept


def _encode_cost(options: ResizeOptions, info: ImageInfo, frames: int) -> EncodeCost:
    writer = likely_writer(options.format, info, frames)
    return writer.cost_of(options)
