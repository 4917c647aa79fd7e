"""What a job will take, told by the header alone, and whether it may: nothing is decoded before that.

Memory is an upper bound, at most about twice what is used where that is much. Time is a lower one where it
decides what is hopeless; where it chooses the lane, every frame counts as a whole one, and runs or text as if
all of the file were of them. All figures are measured by ``bench/cost.py`` with libvips 8.18.7 and one thread
a worker. A picture takes one of two ways through libvips:

* rows that stream: some 2,000 of them, whatever the height of the picture;
* and on top what its decoder or encoder holds: coefficients of a progressive JPEG, the whole of an interlaced
  PNG, the canvas of a GIF, planes of an AVIF, two rows of a TIFF's tiles, …
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vipsrv.errors import TooLarge
from vipsrv.options import Format, ImageInfo, Position, ResizeOptions
from vipsrv.pipeline import layout, own
from vipsrv.pipeline.direct import FIRST_TURNED
from vipsrv.pipeline.fit import fit
from vipsrv.pipeline.header import Header
from vipsrv.pipeline.heif import coded_pixels
from vipsrv.pipeline.opening import MOST_PAGES, too_many_pages
from vipsrv.pipeline.upload import Upload
from vipsrv.worker_config import WorkerConfig

LIGHT = 64 << 20
"""Bytes of memory up to which a job may run on any worker beside others; more needs the heavy lane."""

LIGHT_SECONDS = 0.15
"""Seconds of computing, likewise. Predicted ones, and so at least: it takes three to ten times as long."""

_EXPANSION_FROM = 100_000_000
"""Bytes: what decodes to no more may be as small a file as it likes."""

_MOST_SCANS = layout.Scans(count=100, segments=1 << 20)
"""Of a JPEG. Encoders make a dozen; 2,000 in 0.3 MB take 14 s of CPU for 64 million pixels. Metadata belong
in front of them, and libjpeg keeps what is between them, too."""

_HOPELESS_FROM = 1.0
"""Seconds: what takes less is tried, however soon its deadline, for the end of a wait in the queue is no
property of the picture."""

_MEGA = 1_000_000
_SIZES = {"uchar": 1, "char": 1, "ushort": 2, "short": 2, "uint": 4, "int": 4, "float": 4, "double": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """``memory``: bytes of anonymous memory at the peak, beyond an idle worker's; ``results``: of these,
    what is made and stays. ``seconds``: of CPU at least; ``at_worst``: the same where what the header does
    not tell is as dear as it can be.
    """

    memory: int
    results: int
    seconds: float
    at_worst: float


class NeedsHeavyLane(Exception):
    """The job would take ``memory`` bytes; that, or its time, is more than light, and it was not started."""

    def __init__(self, memory: int) -> None:
        super().__init__(f"the job would take {memory} bytes of memory")
        self.memory = memory


def admit(
    upload: Upload,
    pages: Sequence[tuple[Header, Sequence[ResizeOptions]]],
    *,
    config: WorkerConfig,
    seconds: float | None,
    heavy_ok: bool,
) -> Cost:
    """What it will take to make the outputs of all ``pages``, one page after another.

    Raises ``TooLarge`` for what would take more than the limits allow or could not be done in ``seconds``,
    ``NeedsHeavyLane`` for what is not light, unless that is ``heavy_ok``, and ``CorruptImage``.
    """
    for header, _ in pages:
        _check_decode(upload, header, config)
    cost = predict_all(upload, pages)
    if cost.memory > config.job_memory:
        raise TooLarge(
            f"the job would take {cost.memory} bytes of memory; job-memory allows {config.job_memory}"
        )
    if seconds is not None and cost.seconds > max(seconds, _HOPELESS_FROM):
        raise TooLarge(
            f"the job would take at least {cost.seconds:.2f} s of computing; "
            f"its deadline allows {seconds:.2f} s"
        )
    if not heavy_ok and (cost.memory > LIGHT or cost.at_worst > LIGHT_SECONDS):
        raise NeedsHeavyLane(cost.memory)
    return cost


def _check_decode(upload: Upload, header: Header, config: WorkerConfig) -> None:
    if header.info.pages > MOST_PAGES:
        raise too_many_pages(header.info.pages)
    decoded = _decoded_bytes(upload, header.inner or header)
    if decoded > _EXPANSION_FROM and decoded > config.max_expansion * upload.size:
        raise TooLarge(
            f"the image decodes to {decoded} bytes, {decoded // max(1, upload.size)} times its size of "
            f"{upload.size}; max-expansion allows {config.max_expansion} times"
        )
    if _is_multiscan(header):
        _check_scans(upload)


def _check_scans(upload: Upload) -> None:
    scans = layout.jpeg_scans(upload, _MOST_SCANS)
    if scans.count > _MOST_SCANS.count:
        raise TooLarge(f"the image has more than {_MOST_SCANS.count} scans, which are allowed")
    if scans.segments > _MOST_SCANS.segments:
        raise TooLarge(
            f"the image has more than {_MOST_SCANS.segments} bytes of metadata behind its first scan, "
            "which are allowed"
        )


def predict_all(upload: Upload, pages: Sequence[tuple[Header, Sequence[ResizeOptions]]]) -> Cost:
    """What it takes to make the outputs of all ``pages``, one page after another: at each the results of
    those before it are there, and the headers of all others.
    """
    memory = results = 0
    seconds = at_worst = 0.0
    opened = sum(header.metadata for header, _ in pages)
    for header, outputs in pages:
        cost = predict(upload, header, outputs)
        memory = max(memory, cost.memory + opened - header.metadata + results)
        results += cost.results
        seconds += cost.seconds
        at_worst += cost.at_worst
    return Cost(memory=memory, results=results, seconds=seconds, at_worst=at_worst)


def predict(upload: Upload, header: Header, outputs: Sequence[ResizeOptions]) -> Cost:
    """What it takes to decode the picture and make all ``outputs`` of it, which are of the same page."""
    info = header.info
    seen = (info.height, info.width) if info.orientation >= FIRST_TURNED else (info.width, info.height)
    placements = [fit(options, *seen) for options in outputs]
    sizes = [placement.scaled for placement in placements]
    needed = max(max(width / seen[0], height / seen[1]) for width, height in sizes)
    decode = _decode(upload, header.inner or header, min(1.0, needed), outputs[0].page)
    bands = 4 if info.has_alpha else 3
    areas = [width * height for width, height in sizes]
    held = _held_between(info, outputs, areas, decode) + max(width for width, _ in sizes) * bands * _OUT_ROWS
    made = [placement.width * placement.height for placement in placements]
    encoders = [_encoder(options, info) for options in outputs]
    encode = max(
        encoder.memory(area, alpha=info.has_alpha) for encoder, area in zip(encoders, made, strict=True)
    )
    results = _RESULT * sum(made)
    copied = upload.size if upload.memory is not None else 0
    encoding = sum(encoder.seconds * area / _MEGA for encoder, area in zip(encoders, made, strict=True))
    # The last one is not there before its encoder is done.
    waiting = results - _RESULT * made[-1]
    memory = _BASE + copied + header.metadata + decode.memory + held + encode + waiting
    return Cost(
        memory=int(memory),
        results=int(results),
        seconds=decode.seconds + encoding,
        at_worst=decode.at_worst + encoding,
    )


# Decoding

_BASE = 6 << 20
"""Bytes: what any job takes."""

_OUT_ROWS = 700
"""Rows of the result that are in memory between the resize and the encoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decode:
    """Bytes at the peak, of a pixel that comes out, and seconds as in ``Cost``."""

    memory: float
    pixel: int
    seconds: float
    at_worst: float


# Seconds for a million bytes of pixels, about half of what was measured: it is for others' machines, too.
_SECONDS = {
    "jpeg": 0.0004,
    "jpeg-multiscan": 0.0013,
    "png": 0.0005,
    "png-interlaced": 0.0017,
    "webp": 0.0013,
    "tiff": 0.0005,
    "gif": 0.0013,
    "avif": 0.006,
}
_SECONDS_OTHERS = 0.0002
_SECONDS_ONE_BY_ONE = 0.03
"""For a million bytes of runs or text, which our own code reads one by one."""


def _decode(upload: Upload, header: Header, scale: float, page: int) -> _Decode:
    """``scale`` (0 to 1): the least that the decoder's own reduction, if it has one, has to leave."""
    info = header.info
    width, pixels = info.width, info.width * info.height
    kind = info.format
    pixel = _pixel_bytes(header)
    streamed, height = float(width), float(info.height)
    held = read = 0.0
    if kind == "jpeg":
        # libjpeg reduces by 2, 4 or 8; ``thumbnail``, which CMYK goes through, by half as much, and so does
        # ``direct`` where the edge would suffer.
        reduced = next((by for by in (8, 4, 2) if scale * by <= 1), 1)
        exact = width % reduced == 0 == info.height % reduced and pixel != _CMYK_PIXEL
        streamed = width / (reduced if exact else max(1, reduced // 2))
        if _is_multiscan(header):
            kind = "jpeg-multiscan"
            held = layout.jpeg_coefficient_bytes(upload) or pixels * 2 * pixel
    elif kind == "png":
        if _field(header, "interlaced"):
            kind = "png-interlaced"
            held = pixels * pixel
    elif kind == "webp":
        # A later frame is laid on the canvas of those before it, neither of them reduced.
        held = pixels * 8.5 if page else _webp_memory(upload, info, pixels, scale)
        streamed, height = width * scale, info.height * scale
    elif kind == "gif":
        # The canvas; for a later frame also the one before it.
        held = pixels * (8 if page else 4)
    elif kind == "tiff":
        held = _tiff_memory(upload, info, pixel, page)
    elif kind not in own.FORMATS:
        held, pixels = _whole_picture(upload, header, pixels)
    elif _own_is_whole(upload, kind):
        held = pixels * 4
        read = upload.size / _MEGA * _SECONDS_ONE_BY_ONE
    sample = _sample_bytes(header)
    rows = min(_STREAMED_ROWS, _ROWS_BESIDES + height) / _STREAMED_ROWS
    # Of wider samples fewer rows are held: 2,200 of 8 bits, 1,450 of 16, 1,075 of 32.
    stream = rows * streamed * (pixel / sample) * (1500 + 700 * sample)
    seconds = pixels * pixel / _MEGA * _SECONDS.get(kind, _SECONDS_OTHERS)
    # Each frame before the page is decoded, too, and may be as large as the canvas or a single pixel.
    frames = page + 1 if info.format in {"gif", "webp"} else 1
    return _Decode(memory=held + stream, pixel=pixel, seconds=seconds, at_worst=seconds * frames + read)


_HEIFS = {"avif", "heic"}
_CMYK_PIXEL = 4
_STREAMED_ROWS = 2200
_ROWS_BESIDES = 800
"""Of a picture lower than that; the rest is for the copies on its way."""


def _webp_memory(upload: Upload, info: ImageInfo, pixels: int, scale: float) -> float:
    """The decoder holds the reduced picture; without loss, and for an alpha channel, all of it before."""
    reduced = pixels * scale**2
    if layout.webp_is_lossless(upload):
        return 4.3 * pixels + 4.5 * reduced
    return 5 * pixels + 4.5 * reduced if info.has_alpha else 7.5 * reduced


_NO_COMPRESSION, _OLD_JPEG, _JPEG = 1, 6, 7
# CCITT, LZW, deflate (two numbers), PackBits: libtiff decodes row after row, whatever the strip's height.
_BY_ROW = {2, 3, 4, 5, 8, 32_946, 32_773}
_MOST_RAW = 64 << 20
"""Bytes of a compressed strip: libvips gives libtiff 50 MB and refuses what needs more."""


def _tiff_memory(upload: Upload, info: ImageInfo, pixel: int, page: int) -> float:
    block = layout.tiff_block(upload, page)
    if block is None:
        return info.width * info.height * pixel * 2
    # Two rows of tiles; or a strip, and the same again while it is copied.
    across = -(-info.width // max(1, block.width)) * block.width if block.is_tile else info.width
    whole = 2.0 * across * block.height * pixel
    if block.is_tile or block.planar:
        return whole
    if block.compression == _NO_COMPRESSION:
        return 0
    return min(whole, upload.size, _MOST_RAW) if block.compression in _BY_ROW else whole


def _whole_picture(upload: Upload, header: Header, pixels: int) -> tuple[float, int]:
    """Bytes that are held, and pixels that are decoded, for ``pixels`` of a picture."""
    if header.info.format not in _HEIFS:
        return pixels * _whole_picture_pixel(header), pixels
    coded = coded_pixels(upload, pixels)
    # The planes of a part; and of several, one after another, what they are copied into.
    held = coded.largest + (pixels / 2 if coded.total > coded.largest else 0)
    return held * _whole_picture_pixel(header), max(pixels, coded.total)


def _whole_picture_pixel(header: Header) -> int:
    """Bytes a pixel of decoders that hold all of it several times over, as measured with AVIF: 15 for 8-bit
    4:2:0, 20 for 4:4:4, 24 for 12 bits; alpha 3 more.
    """
    deep = _sample_bytes(header) > 1
    return (24 if deep else 21) + (4 if header.info.has_alpha else 0)


def _own_is_whole(upload: Upload, kind: str) -> bool:
    """Whether it is no plain rows: a BMP that is run-length encoded, a PNM in text, any icon."""
    head = upload.head(34)
    if kind == "bmp":
        compression = int.from_bytes(head[30:34], "little")
        return head[14] > 12 and compression in {1, 2} if len(head) == 34 else True  # noqa: PLR2004
    return kind != "pnm" or head[1:2] in b"123"


def _pixel_bytes(header: Header) -> int:
    """A decoded pixel's bytes."""
    if header.info.format in own.FORMATS:  # its image is not to be touched: that may decode it
        return 4
    return header.shape.bands * _sample_bytes(header)


def _is_multiscan(header: Header) -> bool:
    """Whether a JPEG's coefficients are held: it is progressive, or its components come one after another."""
    if header.info.format != "jpeg":
        return False
    return bool(_field(header, "jpeg-multiscan") or _field(header, "interlaced"))


def _sample_bytes(header: Header) -> int:
    if header.info.format in own.FORMATS:
        return 1
    return _SIZES.get(header.shape.format, 8)


def _decoded_bytes(upload: Upload, header: Header) -> int:
    """Bytes of all pixels as deep as they are stored: a palette's index, a bit."""
    info = header.info
    pixels = info.width * info.height
    if info.format in _HEIFS:
        pixels = max(pixels, coded_pixels(upload, pixels).total)
    if info.format in own.FORMATS:
        return pixels
    bits = _field(header, "bits-per-sample") or 8 * _sample_bytes(header)
    bands = 1 if _field(header, "palette") else header.shape.bands
    return int(pixels * bits * bands) // 8


def _field(header: Header, name: str) -> Any:
    image = header.image
    return image.get(name) if image.get_typeof(name) else None


# Results


def _held_between(
    info: ImageInfo, outputs: Sequence[ResizeOptions], areas: Sequence[int], decode: _Decode
) -> float:
    """What is kept of the resized picture: a turned one, one that is looked at before it is cut, one that is
    encoded more than once, and of several results all.
    """
    bands = 4 if info.has_alpha else 3
    if len(outputs) > 1:
        # Once as decoded, which the largest result is, too, unless it is enlarged; and each of the others.
        decoded = min(max(areas), info.width * info.height)
        return (decoded + sum(areas) - (max(areas) if max(areas) == decoded else 0)) * bands
    (options,) = outputs
    kept = 0.0
    if info.orientation > 1:
        kept += areas[0] * decode.pixel
    if options.position in {Position.ENTROPY, Position.ATTENTION}:
        kept += areas[0] * (2 * bands if info.has_alpha else bands)
    if options.max_bytes is not None:
        kept += areas[0] * bands
    return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class _Encoder:
    """Bytes at the peak: ``pixel`` bytes a pixel, ``alpha`` more with an alpha channel, and ``base`` for
    large results, less for small ones. ``seconds`` a million pixels, about a third of what was measured, for
    flat pictures take less.
    """

    pixel: float
    seconds: float
    alpha: float = 0
    base: int = 0

    def memory(self, area: int, *, alpha: bool) -> float:
        """Bytes for a result of ``area`` pixels."""
        pixel = self.pixel + (self.alpha if alpha else 0)
        return pixel * area + min(self.base, _BASE_PIXEL * area)


_BASE_PIXEL = 40
"""Bytes a pixel that come to an encoder's base at most."""

_RESULT = 1.5
"""Bytes a pixel of a result that waits for the others."""

_ENCODERS = {
    Format.JPEG: _Encoder(pixel=1, seconds=0.006),
    Format.PNG: _Encoder(pixel=4, alpha=1, seconds=0.008),
    Format.WEBP: _Encoder(pixel=7, alpha=15, seconds=0.04),
    Format.AVIF: _Encoder(pixel=24, alpha=14, base=8 << 20, seconds=0.1),
    Format.TIFF: _Encoder(pixel=4, alpha=2, seconds=0.005),
    Format.GIF: _Encoder(pixel=10, base=24 << 20, seconds=0.1),
}
_LOSSLESS = {
    Format.WEBP: _Encoder(pixel=38, alpha=4, base=20 << 20, seconds=0.1),
    Format.AVIF: _Encoder(pixel=38, alpha=14, base=8 << 20, seconds=0.1),
}


def _encoder(options: ResizeOptions, info: ImageInfo) -> _Encoder:
    written = options.format
    if written is Format.AUTO:  # the source's own, or one that takes no more than PNG
        written = Format(info.format) if info.format in list(Format) else Format.PNG
    return (options.lossless and _LOSSLESS.get(written)) or _ENCODERS[written]
