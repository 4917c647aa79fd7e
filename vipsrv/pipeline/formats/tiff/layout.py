"""How the pixels of a TIFF page are stored: strips, tiles, rows that need no decoding, and what decoding
costs.
"""

from dataclasses import dataclass
from itertools import islice

from vipsrv.pipeline.formats.base import DecodeCost, DecodeRequest
from vipsrv.pipeline.formats.tiff.directory import Tag, directories, page_fields
from vipsrv.pipeline.header import Decoder
from vipsrv.pipeline.upload import Upload

_NO_COMPRESSION, _CHUNKY, _HIGH_BITS_FIRST = 1, 1, 1
_SEPARATE_PLANES = 2
# CCITT, LZW, deflate (two numbers), PackBits: libtiff decodes row by row, for any strip height.
_ROW_BY_ROW = {2, 3, 4, 5, 8, 32_946, 32_773}
_PHOTOMETRIC_OF = {1: 1, 3: 2}
"""By the bytes of a pixel: grey with black as 0, and RGB."""
_BYTE = 8
_REDUCED = 1
"""The bit of a subfile type that marks a smaller version of another page."""
_LABS = {8, 9, 10}
_OPERATIONS, _OPERATION_ROWS = 100, 128
"""Bytes of a pixel in all operations that put a page together, and the rows that each of them has."""

_SEARCH = 6e-9  # seconds

_MAX_STRIPS = 1 << 20
_MAX_COMPRESSED_STRIP = 64 << 20
"""Bytes of a compressed strip: libvips gives libtiff 50 MB and refuses what needs more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The unit of decoding: a strip or tile of ``width`` × ``height`` pixels. ``compression`` is the
    number in that field; ``planar``: each band has its own blocks.
    """

    width: int
    height: int
    is_tile: bool
    compression: int
    planar: bool


def block_of(upload: Upload, page: int) -> Block | None:
    """Return the block of a page, counted from 0; ``None`` if its directory cannot be read."""
    fields = page_fields(upload, page)
    if not fields:
        return None
    width, height = fields.get(Tag.WIDTH, 0), fields.get(Tag.LENGTH, 0)
    is_tile = Tag.TILE_WIDTH in fields and Tag.TILE_LENGTH in fields
    rows = min(height, fields.get(Tag.ROWS_PER_STRIP, height) or height)
    return Block(
        width=fields[Tag.TILE_WIDTH] if is_tile else width,
        height=fields[Tag.TILE_LENGTH] if is_tile else rows,
        is_tile=is_tile,
        compression=fields.get(Tag.COMPRESSION, 1),
        planar=fields.get(Tag.PLANAR) == _SEPARATE_PLANES,
    )


def rows_start(upload: Upload, pixel: int) -> int | None:
    """Return the position in bytes of the first page's rows, if all of them are stored contiguously and as
    they are decoded: grey or RGB of 8 bits, ``pixel`` bytes per pixel, not compressed, in strips without
    gaps.
    """
    position, tiff = next(directories(upload), (0, None))
    if tiff is None:
        return None
    fields = tiff.fields(upload, position)
    is_plain = (
        fields.get(Tag.COMPRESSION, _NO_COMPRESSION) == _NO_COMPRESSION
        and fields.get(Tag.PLANAR, _CHUNKY) == _CHUNKY
        and fields.get(Tag.FILL_ORDER, _HIGH_BITS_FIRST) == _HIGH_BITS_FIRST
        and fields.get(Tag.PHOTOMETRIC) == _PHOTOMETRIC_OF.get(pixel, 0)
        and fields.get(Tag.SAMPLES, 1) == pixel
        and Tag.TILE_WIDTH not in fields
        and set(tiff.numbers(upload, position, Tag.BITS, pixel)) == {_BYTE}
    )
    stride, height = fields.get(Tag.WIDTH, 0) * pixel, fields.get(Tag.LENGTH, 0)
    offsets = tiff.numbers(upload, position, Tag.STRIP_OFFSETS, _MAX_STRIPS)
    sizes = tiff.numbers(upload, position, Tag.STRIP_SIZES, _MAX_STRIPS)
    if not is_plain or not offsets or len(offsets) != len(sizes):
        return None
    strip = stride * min(height, fields.get(Tag.ROWS_PER_STRIP, height))
    start, end = offsets[0], offsets[0] + stride * height
    if not strip or len(offsets) != -(-height * stride // strip) or end > upload.size:
        return None
    expected = range(start, end, strip)
    is_whole = all(size == min(strip, end - offset) for offset, size in zip(expected, sizes, strict=True))
    return start if is_whole and offsets == list(expected) else None


def is_pyramid(upload: Upload) -> bool:
    """Whether all pages but the first are marked as smaller versions of another page."""
    others = islice(directories(upload), 1, None)
    return all(tiff.fields(upload, position).get(Tag.SUBFILE_TYPE, 0) & _REDUCED for position, tiff in others)


def decode_cost(request: DecodeRequest) -> DecodeCost:
    """Return the cost of decoding a page: two rows of tiles, or a strip and a copy of it.

    A page that is put together here takes rows of its own in each operation, and may be decoded twice.
    """
    held = _held(request)
    if request.header.source.decoder is not Decoder.CORRECTED:
        return DecodeCost(seconds=0.0005, held=held, parsing=_searching(request))
    info = request.header.info
    photometric = page_fields(request.upload, request.page).get(Tag.PHOTOMETRIC)
    # Measured with 15 megapixels: 0.005 s for floats and YCbCr, 0.04 s for L*a*b*.
    return DecodeCost(
        seconds=0.02 if photometric in _LABS else 0.0025,
        parsing=_searching(request),
        held=held + _OPERATIONS * info.width * min(info.height, _OPERATION_ROWS),
    )


def _searching(request: DecodeRequest) -> float:
    """Return the seconds in which libvips looks for tiles: for each through all of its row."""
    block = block_of(request.upload, request.page)
    if block is None or not block.is_tile:
        return 0
    info = request.header.info
    across, down = -(-info.width // max(1, block.width)), -(-info.height // max(1, block.height))
    return _SEARCH * across * across * down


def _held(request: DecodeRequest) -> float:
    info, pixel = request.header.info, request.header.pixel_bytes
    block = block_of(request.upload, request.page)
    if block is None:
        return info.width * info.height * pixel * 2
    across = -(-info.width // max(1, block.width)) * block.width if block.is_tile else info.width
    whole = 2.0 * across * block.height * pixel
    if block.is_tile or block.planar:
        return whole
    if block.compression == _NO_COMPRESSION:
        return 0
    if block.compression in _ROW_BY_ROW:
        return min(whole, request.upload.size, _MAX_COMPRESSED_STRIP)
    return whole
