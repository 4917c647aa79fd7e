"""Show a page to libvips as a plainer one: the same strips or tiles of the same file, with other fields.

libtiff decompresses the blocks of nearly every TIFF; what libvips refuses or gets wrong is what they hold. So
a directory is written behind the end of the file that describes the same blocks as, say, rows of bytes, or
one of several planes as a grey page. No block is copied, and the pixels still stream.
"""

import struct
from collections.abc import Mapping, Sequence

import pyvips

from vipsrv.errors import UnsupportedFormat
from vipsrv.pipeline.formats.tiff.directory import TYPE_BYTES, Tag
from vipsrv.pipeline.formats.tiff.page import Entry, Page

SHORT, LONG = 3, 4
_LETTERS = {SHORT: "H", LONG: "I"}
_CLASSIC_END = (1 << 32) - (1 << 20)
"""Bytes: a classic TIFF cannot hold positions beyond 4 GiB, and a directory takes less than 1 MiB."""

Fields = Mapping[int, tuple[int, Sequence[int]] | Entry | None]
"""The fields that differ: type and values, an entry as it is stored, or ``None`` for one that is left out."""

_BLOCKS = (Tag.STRIP_OFFSETS, Tag.STRIP_SIZES, Tag.TILE_OFFSETS, Tag.TILE_SIZES)


def shorts(*values: int) -> tuple[int, Sequence[int]]:
    """Return a field of 16-bit numbers."""
    return SHORT, values


def longs(*values: int) -> tuple[int, Sequence[int]]:
    """Return a field of 32-bit numbers."""
    return LONG, values


def plane_fields(page: Page, plane: int) -> Fields:
    """Return the fields that show one plane of a page whose planes are apart."""
    return {
        Tag.PLANAR: None,
        Tag.SAMPLES: shorts(1),
        **{tag: _part(page, page.entries[tag], plane) for tag in _BLOCKS if tag in page.entries},
    }


def _part(page: Page, entry: Entry, plane: int) -> Entry:
    """Return the part of a list of positions or sizes that belongs to a plane."""
    count = entry.count // page.samples
    size = TYPE_BYTES.get(entry.kind, 1)
    start, length = plane * count * size, count * size
    if entry.count * size <= len(entry.value):
        return Entry(entry.kind, count, entry.value[start : start + length].ljust(len(entry.value), b"\0"))
    position = page.tiff.start(entry.value) + start
    if length <= len(entry.value):
        return Entry(entry.kind, count, page.upload.read(position, length).ljust(len(entry.value), b"\0"))
    return Entry(entry.kind, count, struct.pack(page.tiff.order + page.tiff.offset, position))


class RearrangedFile:
    """The bytes of an upload, followed by one directory in place of all others."""

    def __init__(self, page: Page, fields: Fields) -> None:
        tiff, upload = page.tiff, page.upload
        start = upload.size + upload.size % 2  # directories begin at even positions
        is_classic = tiff.offset == "I"
        if is_classic and start > _CLASSIC_END:
            raise UnsupportedFormat("this tiff is too large for the way in which its pixels are stored")
        link = 4 if is_classic else 8
        number = struct.Struct(tiff.order + tiff.offset)
        self._upload = upload
        self._start = start
        self._head = upload.read(0, link) + number.pack(start)
        self._tail = _directory(page, fields, start)
        self._position = 0

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self._start + len(self._tail)

    def source(self) -> pyvips.Source:
        """Return a source for libvips; the only one, because it has a position in the file."""
        source = pyvips.SourceCustom()
        source.on_read(self._read)
        source.on_seek(self._seek)
        return source

    def read_at(self, position: int, count: int) -> bytes:
        """Return up to ``count`` bytes, fewer at the end of the file."""
        end = min(position + count, self.size)
        if len(self._head) <= position and end <= self._upload.size:
            return self._upload.read(position, end - position)
        file = self._upload.read(position, max(0, min(end, self._upload.size) - position))
        file = self._head[position : position + len(file)] + file[max(0, len(self._head) - position) :]
        gap = bytes(max(0, min(end, self._start) - max(position, self._upload.size)))
        return file + gap + self._tail[max(0, position - self._start) : max(0, end - self._start)]

    def _read(self, count: int) -> bytes:
        data = self.read_at(self._position, count)
        self._position += len(data)
        return data

    def _seek(self, offset: int, whence: int) -> int:
        base = {0: 0, 1: self._position, 2: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position


def _directory(page: Page, fields: Fields, start: int) -> bytes:
    tiff = page.tiff
    number = struct.Struct(tiff.order + tiff.offset)
    entries: dict[int, Entry | tuple[int, Sequence[int]]] = {
        tag: entry for tag, entry in page.entries.items() if tag not in fields
    }
    entries |= {tag: field for tag, field in fields.items() if field is not None}
    count = struct.Struct(tiff.order + tiff.count)
    values_start = start + count.size + len(entries) * tiff.entry_size + number.size
    rows, values = [], b""
    for tag, field in sorted(entries.items()):
        if isinstance(field, Entry):
            entry = field
        else:
            kind, wanted = field
            data = struct.pack(f"{tiff.order}{len(wanted)}{_LETTERS[kind]}", *wanted)
            if len(data) > number.size:
                entry = Entry(kind, len(wanted), number.pack(values_start + len(values)))
                values += data
            else:
                entry = Entry(kind, len(wanted), data.ljust(number.size, b"\0"))
        rows.append(struct.pack(f"{tiff.order}HH{tiff.offset}", tag, entry.kind, entry.count) + entry.value)
    return count.pack(len(rows)) + b"".join(rows) + number.pack(0) + values


def open_rearranged(page: Page, fields: Fields, fail_on: str) -> pyvips.Image:
    """Open a page with other fields. Raises ``pyvips.Error`` and ``UnsupportedFormat``."""
    source = RearrangedFile(page, fields).source()
    image: pyvips.Image = pyvips.Operation.call(
        "tiffload_source", source, access="sequential", fail_on=fail_on
    )
    # As pyvips does: libvips calls Python code for each read, which must exist as long as the image.
    image._references.append(source)  # noqa: SLF001
    return image
