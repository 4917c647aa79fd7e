"""Read the directories of a TIFF or BigTIFF: one per page, a chain through the file.

libvips does not report these fields. Parts that cannot be read count as nothing; libvips refuses such a file.
Sources: TIFF revision 6.0 (1992) and libtiff's description of BigTIFF.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice

from vipsrv.pipeline.upload import Upload


class Tag(IntEnum):
    """The numbers of the fields that are used."""

    SUBFILE_TYPE = 254
    WIDTH = 256
    LENGTH = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    DESCRIPTION = 270
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    STRIP_SIZES = 279
    PLANAR = 284
    RESOLUTION_UNIT = 296
    PREDICTOR = 317
    COLOUR_MAP = 320
    TILE_WIDTH = 322
    TILE_LENGTH = 323
    TILE_OFFSETS = 324
    TILE_SIZES = 325
    SUB_DIRECTORIES = 330
    INK_NAMES = 333
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    MIN_SAMPLE = 340
    MAX_SAMPLE = 341
    JPEG_TABLES = 347
    DECODE = 433
    JPEG_PROCESS = 512
    JPEG_FILE = 513
    JPEG_FILE_SIZE = 514
    JPEG_Q_TABLES = 519
    JPEG_DC_TABLES = 520
    JPEG_AC_TABLES = 521
    COEFFICIENTS = 529
    SUBSAMPLING = 530
    REFERENCE_BLACK_WHITE = 532
    PROFILE = 34_675
    NO_DATA = 42_113


_POSITIONS = {Tag.STRIP_OFFSETS, Tag.STRIP_SIZES, Tag.TILE_OFFSETS, Tag.TILE_SIZES}
_MAX_FIELD = 64 << 20
"""Bytes of a field: libvips gives libtiff 50 MB for one, and a longer one is skipped."""

_INTEGER_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_FRACTIONS = {5, 10}
_NUMBER_TYPES = {
    **_INTEGER_TYPES,
    5: "I",
    6: "b",
    8: "h",
    9: "i",
    10: "i",
    11: "f",
    12: "d",
    17: "q",
}
TYPE_BYTES = {
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
_BIG_TIFF = 43
_MAX_ENTRIES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataSizes:
    """Bytes of a page's description, and of all other fields that are read, without the positions of its
    strips or tiles.
    """

    description: int
    others: int


@dataclass(frozen=True, slots=True)
class TiffStructure:
    """The byte order of a file, and the ``struct`` letters of an offset and of a number of entries."""

    order: str
    offset: str
    count: str

    def number(self, upload: Upload, position: int, kind: str) -> int | None:
        """Return the number at a position; ``None`` at the end of the file."""
        size = struct.calcsize(f"={kind}")
        data = upload.read(position, size)
        return struct.unpack(f"{self.order}{kind}", data)[0] if len(data) == size else None

    @property
    def entry_size(self) -> int:
        """Bytes of an entry: tag, type, number of values, and the value or its offset."""
        return 4 + 2 * struct.calcsize(f"={self.offset}")

    def fields(self, upload: Upload, position: int) -> dict[int, int]:
        """Return the fields that hold a single integer, by tag."""
        found = {}
        for tag, kind, amount, value in self.entries(upload, position):
            if kind in _INTEGER_TYPES and amount == 1:
                integer = struct.Struct(f"{self.order}{_INTEGER_TYPES[kind]}")
                if integer.size <= len(value):
                    found[tag] = integer.unpack_from(value)[0]
        return found

    def numbers(self, upload: Upload, position: int, wanted: int, limit: int) -> list[int]:
        """Return the integers of the field with the tag ``wanted``; an empty list if it is missing,
        truncated, or has more than ``limit``.
        """
        for tag, kind, amount, value in self.entries(upload, position):
            if tag == wanted:
                return list(self.integers(upload, kind, amount, value, limit))
        return []

    def integers(self, upload: Upload, kind: int, amount: int, value: bytes, limit: int) -> tuple[int, ...]:
        """Return the integers of a field; none if it has others, is truncated, or has more than ``limit``."""
        if kind not in _INTEGER_TYPES or amount > limit:
            return ()
        numbers = struct.Struct(f"{self.order}{amount}{_INTEGER_TYPES[kind]}")
        data = self._data(upload, numbers.size, value)
        return numbers.unpack_from(data) if len(data) >= numbers.size else ()

    def decimals(self, upload: Upload, kind: int, amount: int, value: bytes) -> tuple[float, ...]:
        """Return the numbers of a field with integers, fractions or floats; none if it is truncated. The
        caller bounds the ``amount``.
        """
        letter = _NUMBER_TYPES.get(kind)
        if letter is None:
            return ()
        is_fraction = kind in _FRACTIONS
        numbers = struct.Struct(f"{self.order}{amount * (2 if is_fraction else 1)}{letter}")
        data = self._data(upload, numbers.size, value)
        if len(data) < numbers.size:
            return ()
        found = numbers.unpack_from(data)
        if not is_fraction:
            return found
        return tuple(
            top / bottom if bottom else 0.0 for top, bottom in zip(found[::2], found[1::2], strict=True)
        )

    def start(self, value: bytes) -> int:
        """Return the position of values that are not in the directory itself."""
        start: int = struct.unpack(f"{self.order}{self.offset}", value)[0]
        return start

    def _data(self, upload: Upload, size: int, value: bytes) -> bytes:
        return value if size <= len(value) else upload.read(self.start(value), size)

    def sizes(self, upload: Upload, position: int) -> Iterator[tuple[int, int]]:
        """Yield tag and size in bytes of each field whose values are stored outside of the directory. Bytes
        beyond the end of the file do not count.
        """
        for tag, kind, amount, value in self.entries(upload, position):
            size = amount * TYPE_BYTES.get(kind, 0)
            if size > len(value):
                start = struct.unpack(f"{self.order}{self.offset}", value)[0]
                yield tag, max(0, min(size, upload.size - start))

    def entries(self, upload: Upload, position: int) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield tag, type, number of values, and the value or its offset, of each field."""
        count = self.number(upload, position, self.count) or 0
        size = min(count, _MAX_ENTRIES) * self.entry_size
        data = upload.read(position + struct.calcsize(f"={self.count}"), size)
        head = struct.Struct(f"{self.order}HH{self.offset}")
        for start in range(0, len(data) - self.entry_size + 1, self.entry_size):
            yield (*head.unpack_from(data, start), data[start + head.size : start + self.entry_size])


def directories(upload: Upload) -> Iterator[tuple[int, TiffStructure]]:
    """Yield the position of each page's directory. The chain ends before it would repeat itself."""
    head = upload.read(0, 4)
    order = "<" if head.startswith(b"II") else ">"
    if len(head) < 4:  # noqa: PLR2004 - byte order and version
        return
    if struct.unpack_from(f"{order}H", head, 2)[0] == _BIG_TIFF:
        tiff, first = TiffStructure(order, "Q", "Q"), 8
    else:
        tiff, first = TiffStructure(order, "I", "H"), 4
    position = tiff.number(upload, first, tiff.offset)
    seen = set()
    while position and position not in seen:
        seen.add(position)
        count = tiff.number(upload, position, tiff.count)
        if count is None:
            return
        yield position, tiff
        next_field = position + struct.calcsize(f"={tiff.count}") + count * tiff.entry_size
        position = tiff.number(upload, next_field, tiff.offset)


def page_fields(upload: Upload, page: int) -> dict[int, int]:
    """Return the fields of a page (counted from 0) that hold a single integer, by tag; an empty dictionary if
    its directory cannot be read.
    """
    found = next(islice(directories(upload), page, None), None)
    if found is None:
        return {}
    position, tiff = found
    return tiff.fields(upload, position)


def metadata_sizes(upload: Upload) -> Iterator[MetadataSizes]:
    """Yield the sizes of each page's metadata, page after page."""
    for position, tiff in directories(upload):
        description = others = 0
        for tag, size in tiff.sizes(upload, position):
            if tag == Tag.DESCRIPTION:
                description += size
            elif tag not in _POSITIONS and size <= _MAX_FIELD:
                others += size
        yield MetadataSizes(description=description, others=others)
