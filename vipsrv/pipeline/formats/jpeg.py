"""JPEG: decoded at 1/2, 1/4 or 1/8 of its size if that is enough, with limits on metadata and scans.

libvips does not report the layout of a file's segments and scans, so this module reads them from its bytes
(ITU-T T.81 (1992), annex B). Parts that it cannot read count as nothing; libvips refuses such a file.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pyvips

from vipsrv.errors import TooLarge
from vipsrv.options import Format
from vipsrv.pipeline import turbo
from vipsrv.pipeline.formats.base import (
    DecodeCost,
    DecodeRequest,
    EncodeCost,
    ImageFormat,
    LibvipsReader,
    LoadedFile,
    ShrinkFor,
    Trial,
    Writer,
    signature,
)
from vipsrv.pipeline.header import ImageHeader
from vipsrv.pipeline.turbo import codec
from vipsrv.pipeline.turbo.pixels import Pixels
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.operations import PreparedOperation, shape

# Layout of the file. SOF0 to SOF15 hold the dimensions, but DHT, JPG and DAC are numbered among them.
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_SEGMENT_BYTES = 150
"""Bytes that libjpeg and libvips take for each segment of metadata besides its content."""

_BLOCK_SIDE = 8
_BLOCK_BYTES = 128
"""Bytes of the 16-bit coefficients of an 8 × 8 block."""

_MARKER = re.compile(rb"\xff([^\0\xff\xd0-\xd7])")
"""A marker that cannot occur within coefficients: there 255 is followed by 0, or begins a restart marker."""

_READ_SIZE = 1 << 20
_FIRST_READ_SIZE = 16
"""Bytes of the first search for the next marker, which follows at once except after coefficients and fill
bytes."""

# Limits
_MAX_HEAD = 16 << 20
"""Bytes before the pixels. Cameras write less than 1 MB; additional images within the metadata (depth, the
other eye) make it several. A colour profile has at most 16.7 MB (255 segments)."""

_HEAD_COPIES = 2
"""Bytes of memory that libjpeg and libvips take per byte of metadata: 500 MB took 1 GB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scans:
    """The number of scans of a JPEG, and the bytes of all segments (tables and metadata) after the first
    scan begins.
    """

    count: int
    segments: int


_MAX_SCANS = Scans(count=100, segments=1 << 20)
"""Encoders make a dozen scans; 2,000 in 0.3 MB take 14 s of CPU for 64 million pixels. Metadata belong before
them; libjpeg keeps those between them as well."""

# Shrink-on-load
_SHRINKS = (8, 4, 2)
"""The fractions at which a JPEG can be decoded; 1/8 is the smallest that libvips uses."""

_MAX_CUT_OFF = 0.25
"""Pixels of the result. libvips drops the last rows and columns of a JPEG that do not fill a whole pixel of
the smaller decode: 7 of 1,607 columns at 1/8. The rest is stretched over the result, whose edge is then off
by that much; half a pixel already costs 0.02 of SSIM."""

_MAX_CUT_OFF_OF_SIDE = 1 / 64
"""Part of a side that may be cut off: 3 of 11 rows at 1/4 are a quarter of the image. 1/64 changes the mean
of a gradient over the whole side by at most two grey levels."""

_NEARLY = 0.995
"""Part of the target that a smaller decode must have. 1599 columns at 1/2 are 799.5 and enough for 800; the
whole decode would take twice as long."""

_MAX_PADDING = 1 / 64
"""Part of a side that may be padding of the encoder in the smaller decode: of 11 rows at 1/8 the last 3 would
count as 8."""

_MAX_DIRECT_SOURCE = 64_000_000
"""Pixels of an image that libjpeg-turbo may decode in one piece. The job cannot be stopped during that time:
0.2 s, three times that for a progressive one."""

_MAX_DIRECT_PIXELS = 4_000_000
"""Pixels of the smaller decode, which is in memory as a whole."""

_DIRECT_PIXEL = 9
"""Bytes of memory for each of these pixels: three copies of RGB while one is handed on."""

_MAX_WHOLE_RESULT = 2_100_000
"""Pixels of a result that is put into memory as a whole to be encoded: up to 1920 × 1080."""

_CMYK_PIXEL = 4  # bytes

open_at = {
    fail_on: PreparedOperation("jpegload_source", "source", "shrink", access="sequential", fail_on=fail_on)
    for fail_on in ("error", "none")
}
"""By ``fail_on``: an operation that takes a source and a shrink factor and returns the image."""

_save_plain = PreparedOperation("jpegsave_buffer", "in", "Q", output="buffer", keep="none")
"""The encoding that most requests need."""


def shrink_factor(size: tuple[int, int], target: tuple[int, int]) -> int:
    """Return the shrink factor (1, 2, 4, 8) for decoding a JPEG of this stored (unrotated) ``size`` to reduce
    it to ``target``.
    """
    factors = (size[0] / target[0], size[1] / target[1])
    least = min(factors)
    for shrink in _SHRINKS:
        if shrink > least:
            continue
        cut_off = max(size[0] % shrink / factors[0], size[1] % shrink / factors[1])
        # Up to half of the factor, ``thumbnail`` does the same. Above it, only a small edge may be cut off.
        if (shrink <= least / 2 or cut_off <= _MAX_CUT_OFF) and keeps_edges(size, shrink):
            return shrink
    return 1


def direct_shrink(size: tuple[int, int], target: tuple[int, int]) -> int | None:
    """Return the shrink factor (1, 2, 4, 8) at which libjpeg-turbo decodes a JPEG of this stored ``size``
    into memory to reduce it to ``target``; ``None`` if the image must stream through libvips instead.
    """
    if size[0] < target[0] or size[1] < target[1]:
        return None

    def is_enough(shrink: int) -> bool:
        return all(
            side / shrink >= needed * _NEARLY and -side % shrink <= side * _MAX_PADDING
            for side, needed in zip(size, target, strict=True)
        )

    shrink = next(filter(is_enough, _SHRINKS), 1)
    return shrink if _is_direct(size, shrink) else None


def _is_direct(size: tuple[int, int], shrink: int) -> bool:
    pixels = size[0] * size[1]
    return pixels <= min(_MAX_DIRECT_SOURCE, _MAX_DIRECT_PIXELS * shrink**2)


def thumbnail_shrink(size: tuple[int, int], target: tuple[int, int]) -> int:
    """Return the shrink factor that ``thumbnail`` uses: at most half of the reduction."""
    factor = min(size[0] / target[0], size[1] / target[1]) / 2
    return next((shrink for shrink in _SHRINKS if shrink <= factor), 1)


def keeps_edges(size: tuple[int, int], shrink: int) -> bool:
    """Whether the rows and columns that are cut off at this shrink factor are a small part of both sides."""
    width, height = size
    return width % shrink <= width * _MAX_CUT_OFF_OF_SIDE and height % shrink <= height * _MAX_CUT_OFF_OF_SIDE


def size_of(upload: Upload) -> tuple[int, int] | None:
    """Return width and height in pixels from the first frame header; ``None`` if there is none."""
    frame = _frame_header(upload)
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    return (width, height) if width and height else None


def coefficient_bytes(upload: Upload) -> int:
    """Return the bytes that libjpeg holds for a JPEG of several scans: the coefficients of all components,
    padded to whole minimum coded units.
    """
    frame = _frame_header(upload)
    if len(frame) < 6:  # noqa: PLR2004 - precision, height, width, number of components
        return 0
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    count = frame[5]
    sampling = [(one >> 4, one & 15) for one in frame[7 : 6 + 3 * count : 3]]
    if not sampling:
        return 0
    across = -(-width // (_BLOCK_SIDE * max(1, *(one for one, _ in sampling))))
    down = -(-height // (_BLOCK_SIDE * max(1, *(one for _, one in sampling))))
    return across * down * _BLOCK_BYTES * sum(one * other for one, other in sampling)


def head_size(upload: Upload, limit: int) -> int:
    """Return the bytes before the first scan (if there are many, nearly all are metadata), and the overhead
    of each segment. Counting stops at ``limit`` + 1.
    """
    for number, (marker, position, _) in enumerate(_markers(upload, limit)):
        size = position + number * _SEGMENT_BYTES
        if marker in {_START_OF_SCAN, _END_OF_IMAGE} or size > limit:
            break
    else:
        size = upload.size
    return min(size, limit + 1)


def count_scans(upload: Upload, limit: Scans) -> Scans:
    """Count the scans of a JPEG until one of the two numbers is above ``limit``."""
    count = segments = 0
    for marker, _, length in _markers(upload, upload.size):
        count += marker == _START_OF_SCAN
        if count:
            segments += length + _SEGMENT_BYTES
        if marker == _END_OF_IMAGE or count > limit.count or segments > limit.segments:
            break
    return Scans(count=count, segments=segments)


def _frame_header(upload: Upload) -> bytes:
    """The first frame header after its length; empty if a scan comes before it."""
    for marker, position, length in _markers(upload, upload.size):
        if marker in _FRAME_HEADERS:
            return upload.read(position + 2, max(0, length - 2))
        if marker == _START_OF_SCAN:
            break
    return b""


def _markers(upload: Upload, end: int) -> Iterator[tuple[int, int, int]]:
    """Each marker from the second on, the position after it, and the bytes of its segment from there on (0 if
    it has none). Everything else is skipped, as libjpeg does. The search ends at ``end``.
    """
    position, size = 2, _FIRST_READ_SIZE
    while position < end:
        piece = upload.read(position, size)
        found = _MARKER.search(piece)
        if found is None:
            if len(piece) < size:
                return
            position += size - 1
            size = _READ_SIZE
            continue
        position, size = position + found.end(), _FIRST_READ_SIZE
        marker = found[1][0]
        length = 0 if marker in _WITHOUT_LENGTH else max(2, int.from_bytes(upload.read(position, 2)))
        yield marker, position, length
        position += length


def _check_metadata(upload: Upload) -> int:
    size = head_size(upload, _MAX_HEAD)
    if size > _MAX_HEAD:
        raise TooLarge(f"this jpeg has more than the {_MAX_HEAD} bytes allowed before its pixels")
    return size * _HEAD_COPIES


def _open_shrunk(upload: Upload, fail_on: str, shrink_for: ShrinkFor) -> LoadedFile | None:
    """Open a JPEG at the fraction at which it will probably be decoded, which saves opening it again (0.1
    ms).

    libvips does not report the size of the whole image then. The frame header is trusted only if its size is
    that of the image times the shrink factor, apart from what libvips cuts off. So the limits are
    never checked against a size that libvips does not confirm.
    """
    size = size_of(upload)
    if size is None:
        return None
    shrink = shrink_for(*size)
    if shrink == 1:
        return None
    image = open_at[fail_on](upload.source, shrink)
    width, height, *_ = shape(image)
    if (width, height) != (size[0] // shrink, size[1] // shrink):
        return None
    return LoadedFile(image=image, width=size[0], height=size[1], shrink=shrink)


def _is_multiscan(header: ImageHeader) -> bool:
    """Whether the decoder holds all coefficients: the JPEG is progressive, or its components come one after
    another.
    """
    return bool(header.field("jpeg-multiscan") or header.field("interlaced"))


def _check_decode(request: DecodeRequest) -> None:
    if not _is_multiscan(request.header):
        return
    scans = count_scans(request.upload, _MAX_SCANS)
    if scans.count > _MAX_SCANS.count:
        raise TooLarge(f"the image has more than the {_MAX_SCANS.count} scans allowed")
    if scans.segments > _MAX_SCANS.segments:
        raise TooLarge(
            f"the image has more metadata after its first scan than the {_MAX_SCANS.segments} bytes allowed"
        )


def _decode_cost(request: DecodeRequest) -> DecodeCost:
    info, pixel = request.header.info, request.header.pixel_bytes
    # libjpeg reduces by 2, 4 or 8. ``thumbnail``, which CMYK goes through, uses half of that factor, and so
    # does the fast path if the edge of the result would be wrong otherwise. A thin image is reduced by less.
    shrink = next((by for by in _SHRINKS if request.scale * by <= 1), 1)
    is_exact = info.width % shrink == 0 == info.height % shrink and pixel != _CMYK_PIXEL
    if not is_exact:
        shrink = max(1, shrink // 2)
    while not keeps_edges((info.width, info.height), shrink):
        shrink //= 2
    size = info.width / shrink, float(info.height)
    held = 0.0
    if turbo.AVAILABLE and _is_direct((info.width, info.height), shrink):
        held = request.pixels / shrink**2 * _DIRECT_PIXEL
    if not _is_multiscan(request.header):
        return DecodeCost(seconds=0.0004, size=size, held=held)
    held += coefficient_bytes(request.upload) or request.pixels * 2 * pixel
    return DecodeCost(seconds=0.0013, size=size, held=held)


def _write_plain(image: pyvips.Image, quality: int) -> bytes:
    width, height, *kind = shape(image)
    if turbo.AVAILABLE and width * height <= _MAX_WHOLE_RESULT and kind == [3, "uchar", "srgb"]:
        return codec.encode(Pixels.from_libvips(image), quality)
    data: bytes = _save_plain(image, quality)
    return data


JPEG = ImageFormat(
    name="jpeg",
    order=10,
    signatures=(signature("JPEG", rb"\xff\xd8\xff"),),
    reader=LibvipsReader(
        loader="jpegload_source",
        family="VipsForeignLoadJpeg",
        trial=Trial(saver="jpegsave_buffer"),
        # Most uploads are JPEGs. Trying every loader in turn takes 0.1 ms, as long as opening the file.
        prefix=b"\xff\xd8\xff",
        check_metadata=_check_metadata,
        open_shrunk=_open_shrunk,
        check_decode=_check_decode,
        decode_cost=_decode_cost,
    ),
    writer=Writer(
        format=Format.JPEG,
        saver="jpegsave_buffer",
        lossy=True,
        lossless=False,
        alpha=False,
        max_side=65_500,  # libjpeg's JPEG_MAX_DIMENSION
        cost=EncodeCost(pixel=1, seconds=0.006),
        save_plain=_write_plain,
    ),
)

FORMATS = (JPEG,)
