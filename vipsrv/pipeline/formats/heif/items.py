"""The images within a HEIF or AVIF file: how many pixels are decoded for the one that is shown, its colours.

The size of the image does not determine the number of pixels: a grid may show a corner of its tiles, a clean
aperture a part of its image, and a grid may name the same tile 256 times. libheif itself refuses a coded
image whose size differs from its ``ispe``.

Sources: ISO/IEC 14496-12 (``meta`` with the boxes in it); ISO/IEC 23008-12 (``ispe``, ``colr``, ``prem``, and
derived images, whose parts ``dimg`` names).
"""

import struct
from collections import defaultdict
from dataclasses import dataclass, field

from vipsrv.errors import CorruptImage
from vipsrv.pipeline.formats.heif.boxes import VERSION_AND_FLAGS, boxes, find_top
from vipsrv.pipeline.upload import Upload

_MAX_META = 8 << 20
"""Bytes of a ``meta`` box: 2,000 times what a phone writes for the 48 tiles of a photo."""

_MEMO = "heif items"

_MAX_DEPTH = 8
"""How deep derived images may be nested."""

_MONOCHROME = 0x10  # of the third byte of av1C
_WIDE_LOCATIONS = 2  # the version of iloc from which on numbers of items have four bytes
_WIDE_INDEX = 1  # of the flags of ipma


@dataclass(frozen=True, slots=True)
class CodedPixels:
    """Pixels that are decoded: in ``total``, with each part counted as often as it is named, and of the
    ``largest`` part.
    """

    total: int
    largest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The image that is shown: the contents of its ``colr`` boxes, that of the ``av1C`` box, and where its
    data begin in the file, of which a grid has those of its first tile; ``is_premultiplied``: its colours are
    multiplied by its alpha.
    """

    colours: tuple[bytes, ...]
    configuration: bytes
    data: int | None
    is_premultiplied: bool

    @property
    def is_monochrome(self) -> bool:
        """Whether an AVIF has no colours."""
        flags = self.configuration[2:3]
        return bool(flags and flags[0] & _MONOCHROME)


@dataclass(slots=True)
class _Items:
    """The content of the ``meta`` box: the pixels of each property that is a size, the numbers of each item's
    properties, the parts of each derived image, and the companions of an image, such as its alpha.

    ``colours`` and ``configurations`` are the contents of properties by their number, ``premultiplied`` the
    items whose colours are multiplied by their alpha, and ``locations`` the content of the ``iloc`` box.
    """

    primary: int | None = None
    areas: dict[int, int] = field(default_factory=dict)
    colours: dict[int, bytes] = field(default_factory=dict)
    configurations: dict[int, bytes] = field(default_factory=dict)
    premultiplied: set[int] = field(default_factory=set)
    locations: bytes = b""
    properties: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    parts: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    companions: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    coded: dict[int, CodedPixels] = field(default_factory=dict)


def coded_pixels(upload: Upload, shown: int) -> CodedPixels:
    """Return the pixels that are decoded for an image that shows ``shown`` pixels. Raises ``CorruptImage`` if
    the boxes do not state them.
    """
    try:
        items = _items_of(upload)
        if items is None:
            return CodedPixels(shown, shown)
        if items.primary is not None:
            return _coded(items, items.primary, _MAX_DEPTH)
    except (struct.error, IndexError):
        pass
    raise CorruptImage("the boxes of this file do not state how large its parts are")


def shown_image(upload: Upload) -> Shown | None:
    """Return what the boxes say of the primary image; ``None`` if they cannot be read."""
    try:
        items = _items_of(upload)
        if items is None or items.primary is None:
            return None
        # A grid has colours of its own, or those of its tiles.
        chain = [items.primary, *items.parts[items.primary][:1]]
        numbers = [number for item in chain for number in items.properties[item]]
        return Shown(
            colours=tuple(items.colours[number] for number in numbers if number in items.colours),
            configuration=next(
                (items.configurations[number] for number in numbers if number in items.configurations), b""
            ),
            data=_location(items.locations, chain[-1]),
            is_premultiplied=items.primary in items.premultiplied,
        )
    except (struct.error, IndexError, CorruptImage):
        return None


def _location(data: bytes, wanted: int) -> int | None:
    """Return where the data of an item begin in the file; ``None`` if they are not one piece of it."""
    if not data:
        return None
    version = data[0]
    offset_size, length_size = data[4] >> 4, data[4] & 15
    base_size, index_size = data[5] >> 4, data[5] & 15
    wide = version >= _WIDE_LOCATIONS
    (count,) = struct.unpack_from(">I" if wide else ">H", data, 6)
    position = 10 if wide else 8
    for _ in range(count):
        (item,) = struct.unpack_from(">I" if wide else ">H", data, position)
        position += 4 if wide else 2
        method = 0
        if version:
            method = data[position + 1] & 15
            position += 2
        position += 2  # data_reference_index
        base = int.from_bytes(data[position : position + base_size])
        (extents,) = struct.unpack_from(">H", data, position + base_size)
        position += base_size + 2
        size = (index_size if version else 0) + offset_size + length_size
        if item == wanted:
            start = position + size - offset_size - length_size
            offset = int.from_bytes(data[start : start + offset_size])
            return base + offset if method == 0 and extents else None
        position += extents * size
    return None


def _coded(items: _Items, item: int, depth: int) -> CodedPixels:
    if item not in items.coded:
        areas = [items.areas[number] for number in items.properties[item] if number in items.areas]
        parts = items.parts[item]
        if depth == 0 or not (areas or parts):
            raise CorruptImage("a part of this image has no size, or is a part of itself")
        if parts:
            all_parts = [_coded(items, part, depth - 1) for part in parts]
        else:
            all_parts = [CodedPixels(max(areas), max(areas))]
        all_parts += [_coded(items, companion, depth - 1) for companion in items.companions[item]]
        items.coded[item] = CodedPixels(
            sum(part.total for part in all_parts), max(part.largest for part in all_parts)
        )
    return items.coded[item]


def _meta(upload: Upload) -> bytes | None:
    """Return the content of the ``meta`` box; ``None`` for a file with a ``mini`` box instead, whose image
    has no parts.
    """
    found = find_top(upload, b"meta", b"mini")
    if found is not None:
        name, start, size = found
        if name == b"mini":
            return None
        if VERSION_AND_FLAGS < size <= _MAX_META:
            return upload.read(start + VERSION_AND_FLAGS, size - VERSION_AND_FLAGS)
    raise CorruptImage("this file has no list of its images, or one that is too large")


def _items_of(upload: Upload) -> _Items | None:
    """Return the content of the ``meta`` box, which is parsed once; ``None`` if there is a ``mini`` box."""
    if _MEMO not in upload.memo:
        meta = _meta(upload)
        upload.memo[_MEMO] = None if meta is None else _items(meta)
    found: _Items | None = upload.memo[_MEMO]
    return found


def _items(meta: bytes) -> _Items:
    items = _Items()
    for name, data in boxes(meta):
        if name == b"pitm":
            (items.primary,) = struct.unpack_from(">I" if data[0] else ">H", data, VERSION_AND_FLAGS)
        elif name == b"iloc":
            items.locations = data
        elif name == b"iref":
            _read_references(items, data)
        elif name == b"iprp":
            for inner_name, inner in boxes(data):
                if inner_name == b"ipco":
                    _read_properties(items, inner)
                elif inner_name == b"ipma":
                    _read_associations(items, inner)
    return items


def _read_properties(items: _Items, data: bytes) -> None:
    for number, (name, content) in enumerate(boxes(data), start=1):
        if name == b"ispe":
            width, height = struct.unpack_from(">II", content, VERSION_AND_FLAGS)
            items.areas[number] = width * height
        elif name == b"colr":
            items.colours[number] = content
        elif name == b"av1C":
            items.configurations[number] = content


def _read_associations(items: _Items, data: bytes) -> None:
    id_format = ">I" if data[0] else ">H"
    wide = data[3] & _WIDE_INDEX
    (count,) = struct.unpack_from(">I", data, VERSION_AND_FLAGS)
    position = VERSION_AND_FLAGS + 4
    for _ in range(count):
        (item,) = struct.unpack_from(id_format, data, position)
        position += struct.calcsize(id_format)
        amount = data[position]
        numbers = struct.unpack_from(f">{amount}{'H' if wide else 'B'}", data, position + 1)
        position += 1 + amount * (2 if wide else 1)
        items.properties[item] += [number & (0x7FFF if wide else 0x7F) for number in numbers]


def _read_references(items: _Items, data: bytes) -> None:
    letter = "I" if data[0] else "H"
    for name, content in boxes(data[VERSION_AND_FLAGS:]):
        origin, count = struct.unpack_from(f">{letter}H", content)
        named = struct.unpack_from(f">{count}{letter}", content, struct.calcsize(f">{letter}H"))
        if name == b"dimg":
            items.parts[origin] += named
        elif name == b"auxl":
            for item in named:
                items.companions[item].append(origin)
        elif name == b"prem":
            items.premultiplied.add(origin)
