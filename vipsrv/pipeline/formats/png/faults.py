"""Say what is wrong with a PNG that libpng refused: libvips does not pass its reason on.

Source: PNG (Third Edition), W3C, sections 5, 7 and 11.
"""

import zlib

from vipsrv.pipeline.upload import Upload

_MAGIC_LENGTH = 8
_MAX_CHUNKS = 20_000
_MAX_CHECKED = 64 << 20
"""Bytes of the file that are checked, and of pixels that are inflated: about 0.2 s."""

_CRITICAL = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel by colour type."""

_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
_PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
"""Of an interlaced image: the first column and row, and the steps between them."""

_MOST_SIDE = 1_000_000
"""Pixels on a side that libpng reads."""

_IHDR = 13
_INDEXED = 3
_IS_SMALL = 0x20
"""The bit of a small letter, with which the name of a chunk begins that may be ignored."""


def explain(upload: Upload, _text: str) -> str | None:
    """Return what is wrong with the chunks or the pixels; ``None`` if nothing is found."""
    view = upload.view()[:_MAX_CHECKED]
    position, names, pixels = _MAGIC_LENGTH, set[bytes](), []
    head = b""
    for _ in range(_MAX_CHUNKS):
        start = bytes(view[position : position + 8])
        length, name = int.from_bytes(start[:4]), start[4:]
        end = position + 8 + length
        if name == b"IEND":
            break
        if len(start) < 8 or end + 4 > len(view):  # noqa: PLR2004 - bytes of length and name
            if upload.size > _MAX_CHECKED:
                return None
            where = _name(name) if len(start) == 8 else "its next chunk"  # noqa: PLR2004
            return f"it is truncated: it ends within {where}"
        fault = _chunk_fault(name, view[position + 4 : end + 4], names)
        if fault is not None:
            return fault
        if name == b"IHDR":
            head = bytes(view[position + 8 : end])
        elif name == b"IDAT":
            pixels.append(view[position + 8 : end])
        names.add(name)
        position = end + 4
    return _fault_of_all(names, pixels, head)


def _fault_of_all(names: set[bytes], pixels: list[memoryview], head: bytes) -> str | None:
    if not pixels:
        return "it has no pixels: there is no chunk IDAT"
    if head[9] == _INDEXED and b"PLTE" not in names:
        return "it has no palette: there is no chunk PLTE"
    return _pixel_fault(pixels, head)


def _name(name: bytes) -> str:
    return f"its chunk {name.decode()}" if name.isalpha() and name.isascii() else "a chunk without a name"


def _chunk_fault(name: bytes, body: memoryview, before: set[bytes]) -> str | None:
    """The fault of a chunk, whose ``body`` goes from its name to its checksum."""
    fault = None
    if not (name.isalpha() and name.isascii()):
        fault = "the name of a chunk is not made of letters"
    elif not before and name != b"IHDR":
        fault = f"its first chunk is {name.decode()} instead of IHDR"
    elif before and name == b"IHDR":
        fault = "it has two chunks IHDR"
    elif name[0] & _IS_SMALL:
        return None
    elif name not in _CRITICAL:
        fault = f"it has an unknown chunk {name.decode()}, which must not be ignored"
    elif zlib.crc32(body[:-4]) != int.from_bytes(body[-4:]):
        fault = f"the checksum of its chunk {name.decode()} is wrong"
    elif name == b"IHDR":
        fault = _head_fault(bytes(body[4:-4]))
    elif name == b"PLTE" and (len(body) - 8) % 3:
        fault = "the length of its palette is not a multiple of three"
    return fault


def _head_fault(head: bytes) -> str | None:
    if len(head) != _IHDR:
        return f"its chunk IHDR has {len(head)} bytes instead of {_IHDR}"
    width, height = int.from_bytes(head[:4]), int.from_bytes(head[4:8])
    depth, colour, compression, filtering, interlace = head[8:]
    if not (0 < width <= _MOST_SIDE and 0 < height <= _MOST_SIDE):
        return f"its size of {width} x {height} is impossible"
    if depth not in _DEPTHS.get(colour, ()):
        return f"there is no colour type {colour} with {depth} bits"
    if compression or filtering or interlace > 1:
        return (
            f"its compression, filters or interlacing ({compression}, {filtering}, {interlace}) are unknown"
        )
    return None


def _pixel_fault(pixels: list[memoryview], head: bytes) -> str | None:
    width, height = int.from_bytes(head[:4]), int.from_bytes(head[4:8])
    bits = head[8] * _SAMPLES[head[9]]
    passes = _PASSES if head[12] else [(0, 0, 1, 1)]
    sizes = [(-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in passes]
    expected = sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sizes if columns > 0 < rows)
    inflate, found = zlib.decompressobj(), 0
    try:
        for piece in pixels:
            data: bytes | memoryview = piece
            while data and not inflate.eof:
                found += len(inflate.decompress(data, 1 << 20))
                data = inflate.unconsumed_tail
                if found > min(expected, _MAX_CHECKED):
                    return None
    except zlib.error as error:
        return f"its pixels cannot be inflated ({str(error).rpartition(': ')[2]})"
    if found < expected:
        return f"its pixels end early: {found} of {expected} bytes are there"
    return None
