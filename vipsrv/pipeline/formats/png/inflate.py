"""Inflate the pixels of a PNG in one call, and wrap them up again as a PNG that needs no inflating.

Inflating is two thirds of the time of a PNG. libpng does it row by row with zlib-ng; libdeflate, which
inflates a whole stream at once, takes three quarters of that time. libvips then reads the rows, still
filtered, from stored blocks (RFC 1951, section 3.2.4), so that all else remains libpng's work: filters,
palettes, metadata. (docs/decisions/0036-webp-and-png-rows.md)

Source for the layout of the file: PNG (Third Edition), W3C, sections 5 and 10.
"""

import struct

import deflate

_MAGIC_LENGTH = 8
_CHUNK_HEAD = struct.Struct(">I4s")
_CHECK = 4
"""Bytes of a checksum, of a chunk or a stream."""

_MAX_CHUNKS = 10_000
"""Chunks in all. An encoder makes one for each 8 KB or more."""

_BLOCK = 65_535
"""Most bytes of a stored block."""

_BLOCK_HEAD = struct.Struct("<BHH")
_STREAM_HEAD = b"\x78\x01"
_HEADER = struct.Struct(">8xI4sIIBB2xB")
"""Signature; length and name of the first chunk; width, height, bit depth, colour type; interlace method."""

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By colour type: grey, RGB, palette, grey and alpha, RGB and alpha."""


def row_bytes(data: memoryview) -> int | None:
    """Return the bytes of all rows with their filter types; ``None`` if the header is not one of a PNG that
    is not interlaced.
    """
    if len(data) < _HEADER.size:
        return None
    _, name, width, height, depth, colour, interlace = _HEADER.unpack_from(data)
    channels = _CHANNELS.get(colour)
    if name != b"IHDR" or channels is None or interlace:
        return None
    bits: int = width * depth * channels
    rows: int = height
    return rows * (-(-bits // 8) + 1)


def stored(data: memoryview, size: int) -> bytes | None:
    """Return the PNG ``data``, whose rows take ``size`` bytes, with all of its chunks, but the pixels stored.

    ``None`` if anything is unusual or wrong; libvips then says what it is.
    """
    found = _compressed(data)
    if found is None:
        return None
    start, end, parts = found
    try:
        rows = deflate.zlib_decompress(b"".join(parts), size)
    except deflate.DeflateError:
        return None
    if len(rows) != size:
        return None
    blocks = _blocks(memoryview(rows))
    checksum = deflate.crc32(b"IDAT")
    for block in blocks:
        checksum = deflate.crc32(block, checksum)
    length = sum(len(block) for block in blocks)
    head = _CHUNK_HEAD.pack(length, b"IDAT")
    return b"".join([data[:start], head, *blocks, checksum.to_bytes(_CHECK), data[end:]])


def _compressed(data: memoryview) -> tuple[int, int, list[memoryview]] | None:
    """Where the chunks with the pixels begin and end, and their contents; ``None`` if a checksum is wrong."""
    position, start = _MAGIC_LENGTH, 0
    parts: list[memoryview] = []
    for _ in range(_MAX_CHUNKS):
        if position + _CHUNK_HEAD.size > len(data):
            return None
        length, name = _CHUNK_HEAD.unpack_from(data, position)
        begin, end = position + _CHUNK_HEAD.size, position + _CHUNK_HEAD.size + length
        if name == b"IDAT":
            if deflate.crc32(data[begin - 4 : end]) != int.from_bytes(data[end : end + _CHECK]):
                return None
            start = start or position
            parts.append(data[begin:end])
        elif parts:
            return start, position, parts
        position = end + _CHECK
    return None


def _blocks(rows: memoryview) -> list[bytes | memoryview]:
    """A zlib stream of these bytes, without compression."""
    blocks: list[bytes | memoryview] = [_STREAM_HEAD]
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        is_last = start + _BLOCK >= len(rows)
        blocks += _BLOCK_HEAD.pack(is_last, len(block), len(block) ^ 0xFFFF), block
    blocks.append(deflate.adler32(rows).to_bytes(_CHECK))
    return blocks
