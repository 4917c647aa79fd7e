"""How a file is laid out, as far as it decides what decoding it takes: read from its bytes, for libvips does
not tell. What cannot be read counts as nothing here; libvips will say so.

Sources: JPEG, ITU-T T.81 (1992), annex B; TIFF revision 6.0 (1992) and libtiff's description of BigTIFF;
WebP, RFC 9649, section 2.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from vipsrv.pipeline.upload import Upload

# JPEG: a marker's second byte. SOF0 to SOF15 hold the dimensions, but for DHT, JPG and DAC among them.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})
_SCAN, _END = 0xDA, 0xD9
_SEGMENT_BYTES = 150
"""What libjpeg and libvips take for each segment of metadata beside its own bytes."""
_BLOCK_SIDE = 8
_BLOCK_BYTES = 128
"""An 8 × 8 block of coefficients of 16 bits."""


def jpeg_size(upload: Upload) -> tuple[int, int] | None:
    """Width and height in pixels that a JPEG's first frame header tells; ``None`` where there is none."""
    frame = _jpeg_frame(upload)
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    return (width, height) if width and height else None


def jpeg_coefficient_bytes(upload: Upload) -> int:
    """What libjpeg holds of a JPEG of several scans: the coefficients of all its components, padded to whole
    minimum coded units.
    """
    return _coefficient_bytes(_jpeg_frame(upload))


def _jpeg_frame(upload: Upload) -> bytes:
    """The parameters of the first frame header, behind its length; nothing where a scan comes before it."""
    for marker, position, length in _jpeg_markers(upload, upload.size):
        if marker in _FRAMES:
            return upload.read(position + 2, max(0, length - 2))
        if marker == _SCAN:
            break
    return b""


def jpeg_head_size(upload: Upload, most: int) -> int:
    """Bytes in front of a JPEG's first scan, nearly all of them metadata where they are many, and what each
    segment takes beside its own; no further counted than one over ``most``.
    """
    for number, (marker, position, _) in enumerate(_jpeg_markers(upload, most)):
        size = position + number * _SEGMENT_BYTES
        if marker in {_SCAN, _END} or size > most:
            break
    else:
        size = upload.size
    return min(size, most + 1)


def _coefficient_bytes(frame: bytes) -> int:
    if len(frame) < 6:  # noqa: PLR2004 - precision, height, width, number of components
        return 0
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    count = frame[5]
    factors = [(one >> 4, one & 15) for one in frame[7 : 6 + 3 * count : 3]]
    if not factors:
        return 0
    across = -(-width // (_BLOCK_SIDE * max(1, *(one for one, _ in factors))))
    down = -(-height // (_BLOCK_SIDE * max(1, *(one for _, one in factors))))
    return across * down * _BLOCK_BYTES * sum(one * other for one, other in factors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scans:
    """Of a JPEG: how many, and the bytes of all segments behind the first of them, tables and metadata."""

    count: int
    segments: int


def jpeg_scans(upload: Upload, most: Scans) -> Scans:
    """All that it has, counted until either is over ``most``."""
    count = segments = 0
    for marker, _, length in _jpeg_markers(upload, upload.size):
        count += marker == _SCAN
        if count:
            segments += length + _SEGMENT_BYTES
        if marker == _END or count > most.count or segments > most.segments:
            break
    return Scans(count=count, segments=segments)


_MARKER = re.compile(rb"\xff([^\0\xff\xd0-\xd7])")
"""What may not stand among coefficients: there 0 follows 255, or a restart marker begins."""
_PIECE = 1 << 20
_NEAR = 16
"""Bytes in which a marker is looked for first: it follows at once, but for coefficients and fill bytes."""


def _jpeg_markers(upload: Upload, end: int) -> Iterator[tuple[int, int, int]]:
    """Each marker from the second on, where it ends, and the bytes of its segment from there on, 0 where it
    has none. All else is skipped, as libjpeg does. None is looked for from ``end`` on.
    """
    position, size = 2, _NEAR
    while position < end:
        piece = upload.read(position, size)
        found = _MARKER.search(piece)
        if found is None:
            if len(piece) < size:
                return
            position += size - 1
            size = _PIECE
            continue
        position, size = position + found.end(), _NEAR
        marker = found[1][0]
        length = 0 if marker in _WITHOUT_LENGTH else max(2, int.from_bytes(upload.read(position, 2)))
        yield marker, position, length
        position += length


_LOSSLESS, _FRAME = b"VP8L", b"ANMF"
_FRAME_HEAD = 16
"""Bytes in front of the chunks that a WebP's frame holds."""
_FEW_CHUNKS = 32
"""In front of a picture; encoders write five at most: VP8X, ICCP, ANIM, ANMF and ALPH."""


def webp_is_lossless(upload: Upload) -> bool:
    """Whether the (first) picture of a WebP is lossless; taken for it, which is dearer, where it lies behind
    more than a few chunks.
    """
    position = 12
    for _ in range(_FEW_CHUNKS):
        head = upload.read(position, 8)
        if len(head) < 8 or head[:4] == b"VP8 ":  # noqa: PLR2004 - name and length
            return False
        if head[:4] == _LOSSLESS:
            return True
        length = int.from_bytes(head[4:], "little")
        position += 8 + (_FRAME_HEAD if head[:4] == _FRAME else length + length % 2)
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What is decoded of a TIFF at once: a strip or tile of ``width`` × ``height`` pixels. ``compression``
    is that field's number, and ``planar`` says that each band has blocks of its own.
    """

    width: int
    height: int
    is_tile: bool
    compression: int
    planar: bool


_COMPRESSION, _ROWS_PER_STRIP, _PLANAR, _TILE_WIDTH, _TILE_LENGTH = 259, 278, 284, 322, 323
_WIDTH, _LENGTH, _PHOTOMETRIC, _FILL_ORDER, _SAMPLES = 256, 257, 262, 266, 277
_SUBFILE_TYPE, _BITS, _DESCRIPTION, _STRIP_OFFSETS, _STRIP_SIZES = 254, 258, 270, 273, 279
_REDUCED = 1
"""The bit of a subfile type that says: a smaller version of another page."""
_BYTE = 8
_MOST_READ = 64 << 20
"""Bytes of a field: libvips gives libtiff 50 MB for one, and a longer one is left out."""
_PLACES = {_STRIP_OFFSETS, _STRIP_SIZES, 324, 325}  # and those of tiles
_NOT_COMPRESSED, _TOGETHER, _HIGH_BITS_FIRST = 1, 1, 1
_PHOTOMETRIC_OF = {1: 1, 3: 2}
"""By the bytes of a pixel: grey with black as 0, and RGB."""
_MOST_STRIPS = 1 << 20
_SEPARATE = 2
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_TYPE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_BIG = 43
_MOST_ENTRIES = 4096


def tiff_numbers(upload: Upload, page: int) -> dict[int, int]:
    """The fields of one integer of a page, counted from 0, by their tags; none where its directory cannot be
    read.
    """
    found = next(islice(_directories(upload), page, None), None)
    if found is None:
        return {}
    position, tiff = found
    return tiff.fields(upload, position)


def tiff_block(upload: Upload, page: int) -> Block | None:
    """The blocks of a page, counted from 0; ``None`` where its directory cannot be read."""
    fields = tiff_numbers(upload, page)
    if not fields:
        return None
    width, height = fields.get(_WIDTH, 0), fields.get(_LENGTH, 0)
    is_tile = _TILE_WIDTH in fields and _TILE_LENGTH in fields
    rows = min(height, fields.get(_ROWS_PER_STRIP, height) or height)
    return Block(
        width=fields[_TILE_WIDTH] if is_tile else width,
        height=fields[_TILE_LENGTH] if is_tile else rows,
        is_tile=is_tile,
        compression=fields.get(_COMPRESSION, 1),
        planar=fields.get(_PLANAR) == _SEPARATE,
    )


def tiff_rows_start(upload: Upload, pixel: int) -> int | None:
    """Where the rows of the first page begin, in bytes, if all of them are there one behind the other as they
    are decoded: grey or RGB of 8 bits, ``pixel`` bytes together, not compressed, in strips without gaps.
    """
    position, tiff = next(_directories(upload), (0, None))
    if tiff is None:
        return None
    fields = tiff.fields(upload, position)
    as_decoded = (
        fields.get(_COMPRESSION, _NOT_COMPRESSED) == _NOT_COMPRESSED
        and fields.get(_PLANAR, _TOGETHER) == _TOGETHER
        and fields.get(_FILL_ORDER, _HIGH_BITS_FIRST) == _HIGH_BITS_FIRST
        and fields.get(_PHOTOMETRIC) == _PHOTOMETRIC_OF.get(pixel, 0)
        and fields.get(_SAMPLES, 1) == pixel
        and _TILE_WIDTH not in fields
        and set(tiff.numbers(upload, position, _BITS, pixel)) == {_BYTE}
    )
    stride, height = fields.get(_WIDTH, 0) * pixel, fields.get(_LENGTH, 0)
    offsets = tiff.numbers(upload, position, _STRIP_OFFSETS, _MOST_STRIPS)
    sizes = tiff.numbers(upload, position, _STRIP_SIZES, _MOST_STRIPS)
    if not as_decoded or not offsets or len(offsets) != len(sizes):
        return None
    strip = stride * min(height, fields.get(_ROWS_PER_STRIP, height))
    start, end = offsets[0], offsets[0] + stride * height
    if not strip or len(offsets) != -(-height * stride // strip) or end > upload.size:
        return None
    expected = range(start, end, strip)
    whole = all(size == min(strip, end - offset) for offset, size in zip(expected, sizes, strict=True))
    return start if whole and offsets == list(expected) else None


def tiff_is_pyramid(upload: Upload) -> bool:
    """Whether all pages of a TIFF but the first say that they are smaller versions of another one."""
    others = islice(_directories(upload), 1, None)
    return all(tiff.fields(upload, position).get(_SUBFILE_TYPE, 0) & _REDUCED for position, tiff in others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """Bytes of a TIFF page's fields: of its description, and of all others that are read but where its
    blocks are.
    """

    description: int
    others: int


def tiff_fields(upload: Upload) -> Iterator[Fields]:
    """Of each page, one after another: a chain of directories through the file."""
    for position, tiff in _directories(upload):
        description = others = 0
        for tag, size in tiff.sizes(upload, position):
            if tag == _DESCRIPTION:
                description += size
            elif tag not in _PLACES and size <= _MOST_READ:
                others += size
        yield Fields(description=description, others=others)


@dataclass(frozen=True, slots=True)
class _Tiff:
    """Byte order, and the letters of ``struct`` for an offset and for a number of entries."""

    order: str
    offset: str
    count: str

    def number(self, upload: Upload, position: int, kind: str) -> int | None:
        size = struct.calcsize(f"={kind}")
        data = upload.read(position, size)
        return struct.unpack(f"{self.order}{kind}", data)[0] if len(data) == size else None

    @property
    def entry_size(self) -> int:
        """Tag, type, number of values, and the value or where it is."""
        return 4 + 2 * struct.calcsize(f"={self.offset}")

    def fields(self, upload: Upload, position: int) -> dict[int, int]:
        """The fields of one integer, by their tags."""
        found = {}
        for tag, kind, amount, value in self._entries(upload, position):
            if kind in _TYPES and amount == 1 and struct.calcsize(f"={_TYPES[kind]}") <= len(value):
                found[tag] = struct.unpack_from(f"{self.order}{_TYPES[kind]}", value)[0]
        return found

    def numbers(self, upload: Upload, position: int, wanted: int, most: int) -> list[int]:
        """The integers of the field with this tag; none where it is missing, cut off, or has more than
        ``most``.
        """
        for tag, kind, amount, value in self._entries(upload, position):
            if tag == wanted and kind in _TYPES and amount <= most:
                numbers = struct.Struct(f"{self.order}{amount}{_TYPES[kind]}")
                if numbers.size > len(value):
                    value = upload.read(struct.unpack(f"{self.order}{self.offset}", value)[0], numbers.size)  # noqa: PLW2901
                return list(numbers.unpack_from(value)) if len(value) >= numbers.size else []
        return []

    def sizes(self, upload: Upload, position: int) -> Iterator[tuple[int, int]]:
        """Tag and bytes of each field whose values do not fit into the directory; what lies behind the
        end of the file is not counted.
        """
        for tag, kind, amount, value in self._entries(upload, position):
            size = amount * _TYPE_BYTES.get(kind, 0)
            if size > len(value):
                start = struct.unpack(f"{self.order}{self.offset}", value)[0]
                yield tag, max(0, min(size, upload.size - start))

    def _entries(self, upload: Upload, position: int) -> Iterator[tuple[int, int, int, bytes]]:
        """Tag, type, number of values, and the value or where it is, of each field."""
        count = self.number(upload, position, self.count) or 0
        size = min(count, _MOST_ENTRIES) * self.entry_size
        data = upload.read(position + struct.calcsize(f"={self.count}"), size)
        head = struct.Struct(f"{self.order}HH{self.offset}")
        for start in range(0, len(data) - self.entry_size + 1, self.entry_size):
            yield (*head.unpack_from(data, start), data[start + head.size : start + self.entry_size])


def _directories(upload: Upload) -> Iterator[tuple[int, _Tiff]]:
    """Where each directory is; the chain ends where it would begin again."""
    head = upload.read(0, 4)
    order = "<" if head.startswith(b"II") else ">"
    if len(head) < 4:  # noqa: PLR2004 - byte order and version
        return
    if struct.unpack_from(f"{order}H", head, 2)[0] == _BIG:
        tiff, first = _Tiff(order, "Q", "Q"), 8
    else:
        tiff, first = _Tiff(order, "I", "H"), 4
    position = tiff.number(upload, first, tiff.offset)
    seen = set()
    while position and position not in seen:
        seen.add(position)
        count = tiff.number(upload, position, tiff.count)
        if count is None:
            return
        yield position, tiff
        behind = position + struct.calcsize(f"={tiff.count}") + count * tiff.entry_size
        position = tiff.number(upload, behind, tiff.offset)
