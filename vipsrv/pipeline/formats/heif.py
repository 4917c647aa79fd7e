"""AVIF and HEIC, which libvips reads with one loader (libheif), and the number of pixels that it decodes.

The size of the image does not determine that number: a grid may show a corner of its tiles, a clean aperture
a part of its image, and a grid may name the same tile 256 times. libheif itself refuses a coded image whose
size differs from its ``ispe``.

Sources: ISO/IEC 14496-12 (boxes, and ``meta`` with those in it); ISO/IEC 23008-12 (``ispe``, and derived
images, whose parts ``dimg`` names).
"""

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from vipsrv.errors import CorruptImage
from vipsrv.options import Chroma, Format
from vipsrv.pipeline.formats import samples
from vipsrv.pipeline.formats.base import (
    DecodeCost,
    DecodeRequest,
    EncodeCost,
    EncoderEffort,
    ImageFormat,
    LibvipsReader,
    Trial,
    Writer,
    signature,
    whole_image_pixel,
)
from vipsrv.pipeline.upload import Upload

_MAX_META = 8 << 20
"""Bytes of a ``meta`` box: 2,000 times what a phone writes for the 48 tiles of a photo."""

_MAX_BOXES = 10_000
_MAX_DEPTH = 8
"""How deep derived images may be nested."""

_VERSION_AND_FLAGS = 4
_LARGE, _TO_THE_END = 1, 0
_WIDE_INDEX = 1  # of the flags of ipma


@dataclass(frozen=True, slots=True)
class CodedPixels:
    """Pixels that are decoded: in ``total``, with each part counted as often as it is named, and of the
    ``largest`` part.
    """

    total: int
    largest: int


@dataclass(slots=True)
class _Items:
    """The content of the ``meta`` box: the pixels of each property that is a size, the numbers of each item's
    properties, the parts of each derived image, and the companions of an image, such as its alpha.
    """

    primary: int | None = None
    areas: dict[int, int] = field(default_factory=dict)
    properties: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    parts: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    companions: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    coded: dict[int, CodedPixels] = field(default_factory=dict)


def coded_pixels(upload: Upload, shown: int) -> CodedPixels:
    """Return the pixels that are decoded for an image that shows ``shown`` pixels. Raises ``CorruptImage`` if
    the boxes do not state them.
    """
    try:
        meta = _meta(upload)
        if meta is None:
            return CodedPixels(shown, shown)
        items = _items(meta)
        if items.primary is not None:
            return _coded(items, items.primary, _MAX_DEPTH)
    except (struct.error, IndexError):
        pass
    raise CorruptImage("the boxes of this file do not state how large its parts are")


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
    position = 0
    for _ in range(_MAX_BOXES):
        head = upload.read(position, 16)
        size, name = struct.unpack_from(">I4s", head)
        start = 8
        if size == _LARGE:
            (size,), start = struct.unpack_from(">Q", head, 8), 16
        elif size == _TO_THE_END:
            size = upload.size - position
        if name == b"meta":
            if not start < size <= _MAX_META:
                break
            return upload.read(position + start + _VERSION_AND_FLAGS, size - start - _VERSION_AND_FLAGS)
        if name == b"mini":
            return None
        if size < start:
            break
        position += size
    raise CorruptImage("this file has no list of its images, or one that is too large")


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The name and content of each box."""
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


def _all_coded_pixels(request: DecodeRequest) -> int:
    return max(request.pixels, coded_pixels(request.upload, request.pixels).total)


def _decode_cost(request: DecodeRequest, seconds: float) -> DecodeCost:
    pixels = request.pixels
    coded = coded_pixels(request.upload, pixels)
    # The planes of one part; of several, one after another, also the image that they are copied into.
    held = coded.largest + (pixels / 2 if coded.total > coded.largest else 0)
    return DecodeCost(
        seconds=seconds,
        held=held * whole_image_pixel(request.header),
        pixels=max(pixels, coded.total),
    )


AVIF = ImageFormat(
    name="avif",
    order=60,
    # After the word ftyp: the file's own brand, its version, and the brands that it is compatible with.
    signatures=(
        signature("AVIF image sequence", rb"....ftypavis", is_read=False),
        signature("AVIF", rb"....ftyp(.{4}){0,16}?avif"),
    ),
    reader=LibvipsReader(
        loader="heifload_source",
        family="VipsForeignLoadHeif",
        trial=Trial(saver="heifsave_buffer", options={"compression": "av1", "effort": 0}),
        shares_loader=True,
        decode_cost=lambda request: _decode_cost(request, 0.006),
        coded_pixels=_all_coded_pixels,
    ),
    writer=Writer(
        format=Format.AVIF,
        saver="heifsave_buffer",
        # docs/decisions/0037-avif-effort.md has the tables. The times are those of a gradient; a photo takes
        # longer, up to 25 times at effort 6. More than 6 gains nothing.
        options={"compression": "av1", "effort": 1},
        effort=EncoderEffort(
            argument="effort",
            values=(0, 1, 2, 3, 4, 5, 6, 6, 6, 6),
            times=(0.6, 1, 1.75, 2.5, 10, 14, 30, 30, 30, 30),
            lossless_default=3,
            lossless_times=(0.3, 0.4, 0.9, 1, 1.5, 1.5, 4, 4, 4, 4),
            memory=(0, 0, 0, 0, 20, 20, 20, 20, 20, 20),
        ),
        chroma={
            Chroma.AUTO: {},
            Chroma.HALF: {"subsample_mode": "on"},
            Chroma.FULL: {"subsample_mode": "off"},
        },
        lossy=True,
        lossless=True,
        alpha=True,
        max_side=16_384,  # what libvips 8.18 allows
        cost=EncodeCost(pixel=24, alpha=14, base=8 << 20, seconds=0.04),
        lossless_cost=EncodeCost(pixel=38, alpha=14, base=8 << 20, seconds=0.1),
    ),
)

HEIC = ImageFormat(
    name="heic",
    order=70,
    signatures=(signature("HEIC", rb"....ftyp(.{4}){0,16}?(hei[cxms]|hev[cxms]|mif1|msf1)"),),
    reader=LibvipsReader(
        loader="heifload_source",
        family="VipsForeignLoadHeif",
        sample=samples.HEIC,  # the libheif in the wheel has no decoder for HEVC
        shares_loader=True,
        decode_cost=lambda request: _decode_cost(request, 0.003),
        coded_pixels=_all_coded_pixels,
    ),
)

FORMATS = (AVIF, HEIC)
