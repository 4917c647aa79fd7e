"""Old-style JPEG in TIFF (compression 6): the strips or tiles of a page as JPEG files of their own.

TIFF 6.0, section 22, spreads the parts of a JPEG over fields: the tables, and the coded data in each strip or
tile. Most programs wrote a whole JPEG file beside them, and let JPEGInterchangeFormat point to it. Both are
turned into plain JPEG files in memory, which libjpeg decodes; libtiff has a reader of its own, which libvips'
wheel is built without.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pyvips

from vipsrv.errors import CorruptImage, TooLarge, UnsupportedFormat
from vipsrv.pipeline.formats.base import OpenedPage
from vipsrv.pipeline.formats.tiff.directory import Tag
from vipsrv.pipeline.formats.tiff.page import Compression, Page, Photometric
from vipsrv.pipeline.formats.tiff.rearrange import Fields, open_rearranged, shorts
from vipsrv.pipeline.vips.fields import with_metadata

_MAX_BLOCKS = 1024
"""Strips or tiles: libvips opens each of them."""

_MAX_SIZE = 64 << 20
"""Bytes of the upload, of which the JPEG files are copies."""

_MAX_SEGMENTS = 1000
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_DQT, _DHT, _SOF = 0xDB, 0xC4, 0xC0
_SOFS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_KEPT = {_DQT, _DHT, 0xDD}  # and the interval of restart markers
_BASELINE = 1
_QUANTISERS, _CODES = 64, 16
_COLOUR_IDS = {Photometric.RGB: b"RGB"}
"""By these names of components libjpeg knows that they are no YCbCr."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """Tables, start of frame and start of scan, each a whole segment; ``end``: where the coded data begin."""

    tables: bytes
    frame: bytes
    scan: bytes
    end: int


def open_old_jpeg(page: Page, fail_on: str) -> OpenedPage:
    """Open a page. Raises ``pyvips.Error``, ``CorruptImage``, ``TooLarge`` and ``UnsupportedFormat``."""
    if page.upload.size > _MAX_SIZE:
        raise TooLarge(f"this tiff has old-style JPEG in {page.upload.size} bytes; {_MAX_SIZE} are allowed")
    if page.samples not in {1, 3}:
        raise UnsupportedFormat(f"this tiff has old-style JPEG of {page.samples} samples a pixel")
    files = list(_files(page))
    images = [pyvips.Image.jpegload_buffer(file, access="sequential", fail_on=fail_on) for file in files]
    across = -(-page.width // _block_width(page)) if len(files) > 1 else 1
    image = images[0] if len(images) == 1 else pyvips.Image.arrayjoin(images, across=across)
    if image.width < page.width or image.height < page.height:
        raise CorruptImage(
            f"this tiff has {page.width} x {page.height} pixels; its JPEG has {image.width} x {image.height}"
        )
    # The fields of the page are those of one without compression, of which nothing is decoded.
    plain: Fields = {
        Tag.COMPRESSION: shorts(Compression.NONE),
        Tag.PHOTOMETRIC: shorts(Photometric.RGB if page.samples > 2 else Photometric.BLACK_IS_ZERO),  # noqa: PLR2004
    }
    page_image = open_rearranged(page, plain, fail_on)
    image = with_metadata(image.crop(0, 0, page.width, page.height), page_image)
    return OpenedPage(image=image, has_alpha=False, memory=2 * page.upload.size)


def _block_width(page: Page) -> int:
    return max(1, page.number(Tag.TILE_WIDTH, 1)) if page.is_tiled else page.width


def _files(page: Page) -> Iterator[bytes]:
    """Yield the JPEG files that together are the page, from left to right and from top to bottom."""
    start, length = page.number(Tag.JPEG_FILE, 0), page.number(Tag.JPEG_FILE_SIZE, 0)
    offsets, sizes = _blocks(page)
    parts = None
    if start:
        file = page.upload.read(start, length or page.upload.size)
        parts = _parse(file, page)
        # The length counts only the tables in some files; then the data follow in the strips.
        if (
            parts is not None
            and (len(offsets) <= 1 or parts.end < len(file))
            and _holds_data(page, parts, start)
        ):
            whole = page.upload.read(start + parts.end, page.upload.size - start - parts.end)
            yield _file(parts, whole, page, page.width, page.height)
            return
    if not offsets:
        raise CorruptImage("this tiff has neither strips nor a JPEG file")
    width = _block_width(page)
    height = page.number(Tag.TILE_LENGTH, 0) if page.is_tiled else page.number(Tag.ROWS_PER_STRIP, 0)
    height = (height if page.is_tiled else min(height or page.height, page.height)) or page.height
    for number, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        data = page.upload.read(offset, size)
        own = _parse(data, page) if data[:2] == bytes((0xFF, _SOI)) else None
        if own is not None:
            data = data[own.end :]
        used = own or parts or _from_fields(page)
        rows = height if page.is_tiled else min(height, page.height - number * height)
        if rows <= 0:
            return
        yield _file(used, data, page, width, rows)


def _blocks(page: Page) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return positions and sizes of the strips or tiles."""
    tags = (Tag.TILE_OFFSETS, Tag.TILE_SIZES) if page.is_tiled else (Tag.STRIP_OFFSETS, Tag.STRIP_SIZES)
    offsets, sizes = (tuple(page.numbers(tag)) for tag in tags)
    if len(offsets) > _MAX_BLOCKS or page.is_planar:
        raise UnsupportedFormat("this tiff has old-style JPEG in planes or in very many parts")
    if len(sizes) != len(offsets):
        ends = sorted({*offsets, page.upload.size})
        sizes = tuple(ends[min(ends.index(offset) + 1, len(ends) - 1)] - offset for offset in offsets)
    if sum(min(size, page.upload.size) for size in sizes) > page.upload.size:
        raise CorruptImage("this tiff has strips or tiles that are larger than the whole file")
    return offsets, sizes


def _holds_data(page: Page, parts: _Parts, start: int) -> bool:
    """Whether the coded data of the page follow the head of its JPEG file."""
    offsets, _ = _blocks(page)
    return not offsets or min(offsets) <= start + parts.end


def _parse(data: bytes, page: Page) -> _Parts | None:
    """Return the parts of a JPEG's head; ``None`` if it is none, or has no start of frame."""
    if data[:2] != bytes((0xFF, _SOI)):
        return None
    tables, frame, scan, at = b"", b"", b"", 2
    for _ in range(_MAX_SEGMENTS):
        if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] == _EOI:  # noqa: PLR2004 - a marker
            break
        marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at : at + 2 + size]
        at += 2 + size
        if marker in _KEPT:
            tables += segment
        elif marker in _SOFS:
            frame = segment
        elif marker == _SOS:
            scan = segment
            break
    if not frame:
        frame = _frame(page)
    return _Parts(tables=tables, frame=frame, scan=scan or _scan(page), end=min(at, len(data)))


def _from_fields(page: Page) -> _Parts:
    """Return the parts that are in the fields of the page."""
    if page.number(Tag.JPEG_PROCESS, _BASELINE) != _BASELINE:
        raise UnsupportedFormat("this tiff has old-style JPEG without loss, which vipsrv does not read")
    tables = b""
    for number, start in enumerate(page.numbers(Tag.JPEG_Q_TABLES)[: page.samples]):
        tables += _segment(_DQT, bytes((number,)) + page.upload.read(start, _QUANTISERS))
    for tag, kind in ((Tag.JPEG_DC_TABLES, 0x00), (Tag.JPEG_AC_TABLES, 0x10)):
        for number, start in enumerate(page.numbers(tag)[: page.samples]):
            counts = page.upload.read(start, _CODES)
            codes = page.upload.read(start + _CODES, min(sum(counts), 256))
            tables += _segment(_DHT, bytes((kind | number,)) + counts + codes)
    if not tables:
        raise CorruptImage("this tiff has old-style JPEG without its tables")
    return _Parts(tables=tables, frame=_frame(page), scan=_scan(page), end=0)


def _frame(page: Page) -> bytes:
    across, down = page.subsampling if page.photometric == Photometric.YCBCR else (1, 1)
    body = bytes((8, 0, 0, 0, 0, page.samples))
    for number in range(page.samples):
        factors = (across & 15) << 4 | (down & 15) if number == 0 else 0x11
        body += bytes((number + 1, factors, number))
    return _segment(_SOF, body)


def _scan(page: Page) -> bytes:
    body = bytes((page.samples,))
    for number in range(page.samples):
        body += bytes((number + 1, number << 4 | number))
    return _segment(_SOS, body + bytes((0, 63, 0)))


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body


def _file(parts: _Parts, data: bytes, page: Page, width: int, height: int) -> bytes:
    """Return a JPEG file of this size, without fields of an application."""
    frame, scan = bytearray(parts.frame), bytearray(parts.scan)
    count = page.samples
    if len(frame) < 10 + 3 * count or len(scan) < 5 + 2 * count or max(width, height) >= 1 << 16:
        raise CorruptImage("this tiff has old-style JPEG whose head is broken")
    frame[5:9] = struct.pack(">HH", height, width)
    names = _COLOUR_IDS.get(Photometric(page.photometric), bytes((1, 2, 3, 4)))
    old = [frame[10 + 3 * number] for number in range(count)]
    for number in range(count):
        frame[10 + 3 * number] = names[number]
        at = 5 + 2 * number
        scan[at] = names[old.index(scan[at])] if scan[at] in old else names[number]
    end = bytes((0xFF, _EOI))
    return bytes((0xFF, _SOI)) + parts.tables + bytes(frame) + bytes(scan) + data + end
