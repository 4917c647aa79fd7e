"""How many pixels are decoded for an AVIF or HEIC. Its own size does not tell: a grid may show a corner of
its tiles, a clean aperture one of its picture, and the same tile may be named 256 times.

Sources: ISO/IEC 14496-12 (boxes, and ``meta`` with those in it); ISO/IEC 23008-12 (``ispe``, and the derived
images, of which ``dimg`` names the parts). What is in the file against its ``ispe`` libheif itself refuses.
"""

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from vipsrv.errors import CorruptImage
from vipsrv.pipeline.upload import Upload

_MOST_META = 8 << 20
"""Bytes of a ``meta`` box: 2,000 times what a phone writes for the 48 tiles of a photo."""

_MOST_BOXES = 10_000
_MOST_DEPTH = 8
"""Of derived images of derived images."""

_VERSION_AND_FLAGS = 4
_LARGE, _TO_THE_END = 1, 0
_WIDE_INDEX = 1  # of the flags of ipma


@dataclass(frozen=True, slots=True)
class Coded:
    """Pixels that are decoded: ``total`` of all parts, each as often as it is named, and ``largest``, the
    most of one part.
    """

    total: int
    largest: int


@dataclass(slots=True)
class _Items:
    """What ``meta`` says: pixels of each property that is a size, the properties of each item by their
    number, the parts of each derived image, and what belongs to an image, such as its alpha.
    """

    primary: int | None = None
    areas: dict[int, int] = field(default_factory=dict)
    properties: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    parts: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    companions: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    coded: dict[int, Coded] = field(default_factory=dict)


def coded_pixels(upload: Upload, shown: int) -> Coded:
    """For the picture that shows so many pixels. Raises ``CorruptImage`` where the boxes do not tell."""
    try:
        meta = _meta(upload)
        if meta is None:
            return Coded(shown, shown)
        items = _items(meta)
        if items.primary is not None:
            return _coded(items, items.primary, _MOST_DEPTH)
    except (struct.error, IndexError):
        pass
    raise CorruptImage("the boxes of this file do not tell how large its parts are")


def _coded(items: _Items, item: int, depth: int) -> Coded:
    if item not in items.coded:
        areas = [items.areas[number] for number in items.properties[item] if number in items.areas]
        parts = items.parts[item]
        if depth == 0 or not (areas or parts):
            raise CorruptImage("a part of this picture has no size, or is a part of itself")
        if parts:
            all_parts = [_coded(items, part, depth - 1) for part in parts]
        else:
            all_parts = [Coded(max(areas), max(areas))]
        all_parts += [_coded(items, companion, depth - 1) for companion in items.companions[item]]
        items.coded[item] = Coded(
            sum(part.total for part in all_parts), max(part.largest for part in all_parts)
        )
    return items.coded[item]


def _meta(upload: Upload) -> bytes | None:
    """What is in the box; ``None`` for a file with one picture and ``mini`` instead, which has no parts."""
    position = 0
    for _ in range(_MOST_BOXES):
        head = upload.read(position, 16)
        size, name = struct.unpack_from(">I4s", head)
        start = 8
        if size == _LARGE:
            (size,), start = struct.unpack_from(">Q", head, 8), 16
        elif size == _TO_THE_END:
            size = upload.size - position
        if name == b"meta":
            if not start < size <= _MOST_META:
                break
            return upload.read(position + start + _VERSION_AND_FLAGS, size - start - _VERSION_AND_FLAGS)
        if name == b"mini":
            return None
        if size < start:
            break
        position += size
    raise CorruptImage("this file has no list of its pictures, or none of a size that is read here")


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each box."""
    position = 0
    while position < len(data):
        size, name = struct.unpack_from(">I4s", data, position)
        start = 8
        if size == _LARGE:
            (size,), start = struct.unpack_from(">Q", data, position + 8), 16
        elif size == _TO_THE_END:
            size = len(data) - position
        if size < start:
            raise struct.error("a box shorter than its head")
        yield name, data[position + start : position + size]
        position += size


def _items(meta: bytes) -> _Items:
    items = _Items()
    for name, data in _boxes(meta):
        if name == b"pitm":
            (items.primary,) = struct.unpack_from(">I" if data[0] else ">H", data, _VERSION_AND_FLAGS)
        elif name == b"iref":
            _read_references(items, data)
        elif name == b"iprp":
            for inner_name, inner in _boxes(data):
                if inner_name == b"ipco":
                    _read_properties(items, inner)
                elif inner_name == b"ipma":
                    _read_associations(items, inner)
    return items


def _read_properties(items: _Items, data: bytes) -> None:
    for number, (name, content) in enumerate(_boxes(data), start=1):
        if name == b"ispe":
            width, height = struct.unpack_from(">II", content, _VERSION_AND_FLAGS)
            items.areas[number] = width * height


def _read_associations(items: _Items, data: bytes) -> None:
    id_format = ">I" if data[0] else ">H"
    wide = data[3] & _WIDE_INDEX
    (count,) = struct.unpack_from(">I", data, _VERSION_AND_FLAGS)
    position = _VERSION_AND_FLAGS + 4
    for _ in range(count):
        (item,) = struct.unpack_from(id_format, data, position)
        position += struct.calcsize(id_format)
        amount = data[position]
        numbers = struct.unpack_from(f">{amount}{'H' if wide else 'B'}", data, position + 1)
        position += 1 + amount * (2 if wide else 1)
        items.properties[item] += [number & (0x7FFF if wide else 0x7F) for number in numbers]


def _read_references(items: _Items, data: bytes) -> None:
    letter = "I" if data[0] else "H"
    for name, content in _boxes(data[_VERSION_AND_FLAGS:]):
        origin, count = struct.unpack_from(f">{letter}H", content)
        named = struct.unpack_from(f">{count}{letter}", content, struct.calcsize(f">{letter}H"))
        if name == b"dimg":
            items.parts[origin] += named
        elif name == b"auxl":
            for item in named:
                items.companions[item].append(origin)
