"""Truevision TGA: true colour, grey and colour-mapped images, each also run-length encoded.

A TGA has no magic number. It is recognised only if no other reader claims the file, and only by a header in
which every field makes sense; files of version 2 also end with a footer. Rows may be stored from the bottom
or from the top, and from the left or from the right. Alpha counts only if the image descriptor gives it
attribute bits. Source: Truevision, "TGA File Format Specification", version 2.0 (1991).
"""

import re
import struct
from dataclasses import dataclass
from enum import IntEnum

import pyvips

from vipsrv.errors import CorruptImage
from vipsrv.pipeline.formats.base import (
    BuiltinImage,
    BuiltinReader,
    DecodeCost,
    DecodeRequest,
    ImageFormat,
    Signature,
    check_decoded_pixels,
    parsed_file_cost,
    streamed_rows_cost,
)
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.raw_rows import RowLayout, read_rows, to_colours, to_numbers
from vipsrv.pipeline.vips.stopping import StopCheck, stop_if_asked

_CHECK_EVERY = 1 << 16
"""Bytes of packets between two calls of ``watch``: up to 30 ms."""

_HEADER = struct.Struct("<BBBHHBHHHHBB")
_FOOTER = b"TRUEVISION-XFILE.\0"
_FOOTER_SIZE = 8 + len(_FOOTER)
"""Bytes: two offsets come first."""

_ENCODED = 8  # the bit of an image type that means run-length encoding
_MAPPED, _TRUE_COLOUR, _GREY = 1, 2, 3
_ATTRIBUTE_BITS, _FROM_RIGHT, _FROM_TOP, _INTERLEAVED = 0x0F, 0x10, 0x20, 0xC0  # of the image descriptor
_MAX_COLOURS = 1 << 16
"""Entries of a table for 16-bit indices. A colour map may claim more, which no index reaches."""

_IS_RUN, _COUNT = 0x80, 0x7F  # of a packet's first byte
_DEPTHS = {_MAPPED: (8, 16), _TRUE_COLOUR: (15, 16, 24, 32), _GREY: (8, 16)}
_RGB15_MASKS = (0x7C00, 0x03E0, 0x001F)
_RGB15_ALPHA = 0x8000


class ColourBits(IntEnum):
    """Bits per pixel, or per entry of the colour map."""

    RGB15 = 15
    RGB15_ALPHA = 16
    BGR = 24
    BGRA = 32


# The image types, sizes other than 0, depths, and descriptors whose attribute bits suit the depth.
_SIZE = rb"....(?!\0\0)..(?!\0\0).."
_NONE_OR_8 = rb"[\0\x08\x10\x18\x20\x28\x30\x38]"
_NONE_OR_1 = rb"[\0\x01\x10\x11\x20\x21\x30\x31]"
_COLOUR_DEPTHS = rb"([\x0f\x10]" + _NONE_OR_1 + rb"|[\x18\x20]" + _NONE_OR_8 + rb")"
_MAP = rb"..(?!\0\0)..[\x0f\x10\x18\x20]"
_PATTERN = re.compile(
    rb".(\0[\x02\x0a]\0{5}" + _SIZE + _COLOUR_DEPTHS
    + rb"|\0[\x03\x0b]\0{5}" + _SIZE + rb"[\x08\x10]" + _NONE_OR_8
    + rb"|\x01[\x02\x0a]" + _MAP + _SIZE + _COLOUR_DEPTHS
    + rb"|\x01[\x01\x09]" + _MAP + _SIZE + rb"[\x08\x10][\0\x01\x08\x10\x11\x18\x20\x21\x28\x30\x31\x38])",
    re.DOTALL,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TgaHeader:
    """``kind`` is the image type without its bit for run-length encoding. ``map_first`` is the index of the
    first colour that the colour map holds, ``map_length`` their number, and ``map_bits`` the bits of each.
    """

    kind: int
    is_encoded: bool
    width: int
    height: int
    bits: int
    attribute_bits: int
    from_right: bool
    from_top: bool
    map_offset: int
    map_first: int
    map_length: int
    map_bits: int

    @property
    def pixel(self) -> int:
        """Bytes of a stored pixel."""
        return (self.bits + 7) // 8

    @property
    def map_entry(self) -> int:
        """Bytes of a colour in the colour map."""
        return (self.map_bits + 7) // 8

    @property
    def offset(self) -> int:
        """Where the pixels begin, in bytes."""
        return self.map_offset + self.map_length * self.map_entry

    @property
    def has_alpha(self) -> bool:
        """Whether the stored colours have alpha, and attribute bits for it."""
        if self.attribute_bits == 0:
            return False
        if self.kind == _GREY:
            return self.pixel > 1
        return (self.map_bits if self.kind == _MAPPED else self.bits) in {
            ColourBits.RGB15_ALPHA,
            ColourBits.BGRA,
        }

    @property
    def is_bgr(self) -> bool:
        """Whether the image that is made has the bands blue, green, red."""
        is_bytes = self.bits in {ColourBits.BGR, ColourBits.BGRA}
        return self.kind == _TRUE_COLOUR and is_bytes and not self.has_alpha


def open_tga(upload: Upload, *, tolerant: bool, watch: StopCheck | None) -> BuiltinImage:
    """Read a file's header. Raises ``CorruptImage``."""
    header = parse_header(upload.head(_HEADER.size))
    return BuiltinImage(
        width=header.width,
        height=header.height,
        has_alpha=header.has_alpha,
        build=lambda: _build(upload.view(), header, tolerant=tolerant, watch=watch),
        is_bgr=header.is_bgr,
    )


def parse_header(data: bytes) -> TgaHeader:
    """Parse the first 18 bytes of a file. Raises ``CorruptImage``."""
    if len(data) < _HEADER.size:
        raise CorruptImage("this tga ends within its header")
    id_length, has_map, image_type, first, length, map_bits, _x, _y, width, height, bits, descriptor = (
        _HEADER.unpack(data)
    )
    kind = image_type & ~_ENCODED
    if bits not in _DEPTHS.get(kind, ()) or has_map > 1 or descriptor & _INTERLEAVED:
        raise CorruptImage(f"this tga has type {image_type} with {bits} bits per pixel, which is not read")
    if not width or not height:
        raise CorruptImage(f"this tga has an impossible size of {width} x {height}")
    if kind == _MAPPED and not (has_map and length and map_bits in list(ColourBits)):
        raise CorruptImage("this tga is colour-mapped, but has no colour map that is read")
    return TgaHeader(
        kind=kind,
        is_encoded=bool(image_type & _ENCODED),
        width=width,
        height=height,
        bits=bits,
        attribute_bits=descriptor & _ATTRIBUTE_BITS,
        from_right=bool(descriptor & _FROM_RIGHT),
        from_top=bool(descriptor & _FROM_TOP),
        map_offset=_HEADER.size + id_length,
        map_first=first,
        map_length=length if has_map else 0,
        map_bits=map_bits,
    )


def _build(view: memoryview, header: TgaHeader, *, tolerant: bool, watch: StopCheck | None) -> pyvips.Image:
    colours = _colour_map(view, header) if header.kind == _MAPPED else []
    stride = header.width * header.pixel
    rows = RowLayout(
        offset=header.offset, stride=stride, used=stride, height=header.height, pixel=header.pixel
    )
    if header.is_encoded:
        pixels = decode_packets(view[header.offset :], header, tolerant=tolerant, watch=watch)
        image = pyvips.Image.new_from_memory(pixels, header.width, header.height, header.pixel, "uchar")
    else:
        image = read_rows(view, rows, "tga", tolerant=tolerant)
    if header.kind == _MAPPED:
        image = _map_colours(image, header, colours)
    elif header.kind == _TRUE_COLOUR:
        image = _true_colours(image, header)
    elif not header.has_alpha:
        image = image.extract_band(0)
    if header.from_right:
        image = image.flip("horizontal")
    if not header.from_top:
        image = image.flip("vertical")
    return image.copy(interpretation="b-w" if header.kind == _GREY else "srgb")


def _colour_map(view: memoryview, header: TgaHeader) -> list[bytes]:
    """Return the colours by their index, as RGB or RGBA. Those before the first one are black."""
    data = bytes(view[header.map_offset : header.offset])
    if len(data) < header.offset - header.map_offset:
        raise CorruptImage("this tga ends within its colour map")
    bands = 4 if header.has_alpha else 3
    entries = (data[at : at + header.map_entry] for at in range(0, len(data), header.map_entry))
    return [bytes(bands)] * header.map_first + [_colour(entry, bands) for entry in entries]


def _colour(entry: bytes, bands: int) -> bytes:
    if len(entry) > 2:  # noqa: PLR2004 - blue, green, red and alpha
        return (entry[2::-1] + entry[3:])[:bands]
    number = int.from_bytes(entry, "little")
    rgb = bytes((255 * (number & mask) + mask // 2) // mask for mask in _RGB15_MASKS)
    return (rgb + (b"\xff" if number & _RGB15_ALPHA else b"\0"))[:bands]


def _map_colours(rows: pyvips.Image, header: TgaHeader, colours: list[bytes]) -> pyvips.Image:
    if header.pixel == 1:
        return to_colours(rows, 8, header.width, colours[:256])
    bands = len(colours[0])
    # An index that has no colour becomes black: libvips uses the last one for those above it.
    table = [*colours, bytes(bands)][:_MAX_COLOURS]
    lut = pyvips.Image.new_from_memory(b"".join(table), len(table), 1, bands, "uchar")
    return to_numbers(rows, 2, "little").maplut(lut)


def _true_colours(rows: pyvips.Image, header: TgaHeader) -> pyvips.Image:
    if header.bits > ColourBits.RGB15_ALPHA:
        if header.has_alpha:
            return rows[2].bandjoin([rows[1], rows[0], rows[3]])
        return rows.extract_band(0, n=3) if header.bits == ColourBits.BGRA else rows
    numbers = pyvips.Image.identity(ushort=True)
    masks = (*_RGB15_MASKS, _RGB15_ALPHA) if header.has_alpha else _RGB15_MASKS
    first, *others = ((numbers & mask).linear(255 / mask, 0.5, uchar=True) for mask in masks)
    return to_numbers(rows, 2, "little").maplut(first.bandjoin(others))


def decode_packets(
    data: memoryview, header: TgaHeader, *, tolerant: bool, watch: StopCheck | None = None
) -> bytearray:
    """Return the pixels of a run-length encoded image, as they would be stored without encoding.

    A packet is a byte and one pixel to be repeated, or a byte and that many pixels. Pixels beyond the end of
    the image are dropped. Missing pixels raise ``CorruptImage``; if ``tolerant``, they are 0. Raises
    ``TooLarge`` and the reason of ``watch`` to stop.
    """
    count = header.width * header.height
    check_decoded_pixels("run-length encoded tga", header.width, header.height)
    pixel, size = header.pixel, count * header.pixel
    pixels = bytearray(size)
    done, at, end, check_at = 0, 0, len(data), 0
    while done < size and at < end:
        if at >= check_at:
            stop_if_asked(watch)
            check_at = at + _CHECK_EVERY
        amount = (data[at] & _COUNT) + 1
        stored = pixel if data[at] & _IS_RUN else amount * pixel
        run = bytes(data[at + 1 : at + 1 + stored])
        if data[at] & _IS_RUN:
            run = run * amount if len(run) == pixel else b""
        at += 1 + stored
        run = run[: size - done]
        pixels[done : done + len(run)] = run
        done += len(run)
    if done < size and not tolerant:
        raise CorruptImage(f"this tga is truncated: its packets have {done // pixel} of {count} pixels")
    return pixels


def _recognises(upload: Upload, head: bytes) -> bool:
    if _PATTERN.match(head):
        return True
    # Version 2: the header may be inconsistent, for example describe a colour map that is missing.
    if upload.read(max(0, upload.size - _FOOTER_SIZE), _FOOTER_SIZE)[8:] != _FOOTER:
        return False
    try:
        parse_header(head[: _HEADER.size])
    except CorruptImage:
        return False
    return True


def _decode_cost(request: DecodeRequest) -> DecodeCost:
    is_encoded = request.upload.head(3)[2] & _ENCODED
    return parsed_file_cost(request) if is_encoded else streamed_rows_cost(request)


TGA = ImageFormat(
    name="tga",
    order=900,
    signatures=(Signature("TGA", _PATTERN),),
    reader=BuiltinReader(recognises=_recognises, open=open_tga, has_magic=False, decode_cost=_decode_cost),
)

FORMATS = (TGA,)
