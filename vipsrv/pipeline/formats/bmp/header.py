"""Read and check every field of a bitmap's header. All numbers are little-endian."""

import struct
from dataclasses import dataclass
from enum import IntEnum

from vipsrv.errors import CorruptImage, UnsupportedFormat
from vipsrv.pipeline.formats.base import check_sides
from vipsrv.pipeline.upload import Upload


class Compression(IntEnum):
    """``biCompression`` as Windows numbers it."""

    RGB = 0
    RLE8 = 1
    RLE4 = 2
    BITFIELDS = 3
    JPEG = 4
    PNG = 5
    ALPHABITFIELDS = 6


FILE_HEADER = 14
"""Bytes of the file header: ``BM``, the file's size, two words, the offset of the pixels. The info header
follows it."""

_CORE = 12
_HEAD_TO_COMPRESSION = 34
_INFO = 40
_V2 = 52  # an info header with three masks
_V3 = 56  # and one for alpha
_V5 = 124
_MIN_OS2 = 16
_OS2 = 64
_WINDOWS = {_INFO, _V2, _V3, 108, _V5}

_PALETTE_AND_MASKS = 256 * 4 + 16
MAX_HEADER = _V5 + _PALETTE_AND_MASKS
"""Bytes from the info header on that are read here, palette and masks included."""

_BITS = {
    Compression.RGB: {1, 2, 4, 8, 16, 24, 32},
    Compression.RLE8: {8},
    Compression.RLE4: {4},
    Compression.BITFIELDS: {16, 32},
    Compression.ALPHABITFIELDS: {16, 32},
}
_UNSUPPORTED = {Compression.JPEG: "holds a JPEG", Compression.PNG: "holds a PNG"}
_OS2_UNSUPPORTED = {3: "has OS/2's Huffman compression", 4: "has OS/2's 24-bit RLE compression"}

_MASKS_16 = (0x7C00, 0x03E0, 0x001F, 0)
_MASKS_32 = (0xFF0000, 0xFF00, 0xFF, 0)
_MAX_INDEXED_BITS = 8
_TRUE_COLOUR = 24
_LONG = 32
_MAX_PROFILE = 4 << 20
_EMBEDDED = 0x4D424544  # bV5CSType PROFILE_EMBEDDED, "MBED"


@dataclass(frozen=True, slots=True, kw_only=True)
class BmpHeader:
    """``offset`` (bytes to the pixels) and ``profile`` (offset and size of an ICC profile) count from the
    beginning of the info header. ``palette`` is RGB. ``masks`` are those of red, green, blue and alpha, 0 if
    there is none.
    """

    width: int
    height: int
    top_down: bool
    bits: int
    compression: Compression
    masks: tuple[int, int, int, int]
    palette: tuple[bytes, ...]
    offset: int
    profile: tuple[int, int] | None

    @property
    def stride(self) -> int:
        """Bytes of an uncompressed row. Rows are padded to 32 bits."""
        return (self.width * self.bits + 31) // 32 * 4

    @property
    def is_bgr(self) -> bool:
        """Whether a pixel is blue, green and red, one byte each, without anything else that has a meaning."""
        byte_masks = self.bits == _LONG and self.masks == _MASKS_32
        return (self.bits == _TRUE_COLOUR or byte_masks) and self.profile is None

    @property
    def is_indexed(self) -> bool:
        """Whether pixels are indices into the palette."""
        return self.bits <= _MAX_INDEXED_BITS


def parse_header(data: bytes, offset: int | None, *, in_icon: bool = False) -> BmpHeader:
    """Parse ``data``, up to ``MAX_HEADER`` bytes from the info header on.

    ``offset`` is where the pixels begin according to the file, ``None`` if they follow the palette. The
    header of an icon has twice the height of the image, because a mask follows. Raises ``CorruptImage``,
    ``UnsupportedFormat`` and ``TooLarge``.
    """
    size = int.from_bytes(data[:4], "little")
    if size != _CORE and size not in _WINDOWS and not _MIN_OS2 <= size <= _OS2:
        raise CorruptImage(f"this bmp has a header of {size} bytes, which no version of the format has")
    if len(data) < size:
        raise CorruptImage(f"this bmp ends within its header of {size} bytes")
    if size == _CORE:
        width, height, bits = struct.unpack_from("<HH2xH", data, 4)
        kind, used = 0, 0
    else:
        # OS/2 allows its header to end early: missing fields are 0.
        fields = struct.unpack("<iiHHIIiiI", data[4:size].ljust(_INFO, b"\0")[:32])
        width, height, _planes, bits, kind, _bytes, _x, _y, used = fields
    top_down = height < 0
    height = abs(height) // (2 if in_icon else 1)
    if width <= 0 or height == 0:
        raise CorruptImage(f"this bmp has an impossible size of {width} x {height}")
    check_sides("bmp", width, height)
    compression = _compression(kind, bits, is_os2=size not in _WINDOWS)
    palette_at = size
    masks = _MASKS_16 if bits == 16 else _MASKS_32  # noqa: PLR2004 - bits per pixel
    if compression in (Compression.BITFIELDS, Compression.ALPHABITFIELDS):
        masks, palette_at = _masks(data, size, compression, bits)
    palette: tuple[bytes, ...] = ()
    palette_ends = palette_at
    if bits <= _MAX_INDEXED_BITS:
        if offset == palette_at:
            offset = None  # some writers forget to count the palette
        palette, palette_ends = _palette(data, palette_at, 3 if size == _CORE else 4, bits, used, offset)
    start = palette_ends if offset is None else offset
    if start < size:
        raise CorruptImage(f"this bmp says that its pixels begin within its header, at byte {start} of it")
    return BmpHeader(
        width=width,
        height=height,
        top_down=top_down,
        bits=bits,
        compression=compression,
        masks=masks,
        palette=palette,
        offset=start,
        profile=_profile(data) if size == _V5 else None,
    )


def is_run_length_encoded(upload: Upload) -> bool:
    """Whether the header says that the bitmap is compressed; a truncated one counts as compressed."""
    head = upload.head(_HEAD_TO_COMPRESSION)
    if len(head) < _HEAD_TO_COMPRESSION:
        return True
    compression = int.from_bytes(head[30:], "little")
    return head[FILE_HEADER] > _CORE and compression in {Compression.RLE8, Compression.RLE4}


def _compression(kind: int, bits: int, *, is_os2: bool) -> Compression:
    refused = _OS2_UNSUPPORTED.get(kind) if is_os2 else None
    try:
        compression = Compression(kind)
    except ValueError:
        raise CorruptImage(f"this bmp has the unknown compression {kind}") from None
    refused = refused or _UNSUPPORTED.get(compression)
    if refused:
        raise UnsupportedFormat(f"this bmp {refused}, which vipsrv does not read")
    if bits not in _BITS[compression]:
        raise CorruptImage(f"this bmp has {bits} bits per pixel with the compression {compression.name}")
    return compression


def _masks(
    data: bytes, size: int, compression: Compression, bits: int
) -> tuple[tuple[int, int, int, int], int]:
    """The masks, which are at the same place in short and long headers, and the offset of what follows."""
    with_alpha = size >= _V3 or compression is Compression.ALPHABITFIELDS
    count = 4 if with_alpha else 3
    if len(data) < _INFO + 4 * count:
        raise CorruptImage("this bmp ends within its masks")
    red, green, blue, *rest = struct.unpack_from(f"<{count}I", data, _INFO)
    masks = (red, green, blue, rest[0] if rest else 0)
    taken = 0
    for mask in masks:
        # The bits of a mask are contiguous, so adding its lowest bit carries through all of them.
        if mask & (mask + (mask & -mask)) or mask & taken or mask >> bits:
            raise CorruptImage(f"this bmp has impossible masks: {', '.join(f'{one:#x}' for one in masks)}")
        taken |= mask
    if not red | green | blue:
        raise CorruptImage("this bmp has no colour mask")
    return masks, max(size, _INFO + 4 * count)


def _palette(
    data: bytes, start: int, entry: int, bits: int, used: int, pixels_at: int | None
) -> tuple[tuple[bytes, ...], int]:
    """The colours, as many as fit before the pixels, and where they end."""
    count = min(used, 1 << bits) or 1 << bits
    room = len(data) if pixels_at is None else min(len(data), pixels_at)
    count = min(count, max(0, room - start) // entry)
    if count == 0:
        raise CorruptImage("this bmp has no palette")
    entries = (data[at : at + 3] for at in range(start, start + count * entry, entry))
    return tuple(colour[::-1] for colour in entries), start + count * entry


def _profile(data: bytes) -> tuple[int, int] | None:
    space, offset, size = struct.unpack_from("<I", data, 56) + struct.unpack_from("<II", data, 112)
    return (offset, size) if space == _EMBEDDED and 0 < size <= _MAX_PROFILE else None
