"""Read and check the header of a DirectDraw surface: what its pixels are. All numbers are little-endian.

Sources: Microsoft, "Programming Guide for DDS" with DDS_HEADER, DDS_PIXELFORMAT and DDS_HEADER_DXT10, and the
enumeration DXGI_FORMAT.
"""

import struct
from dataclasses import dataclass
from enum import Enum

from vipsrv.errors import CorruptImage, UnsupportedFormat
from vipsrv.pipeline.formats.base import check_sides

MAX_HEADER = 4 + 124 + 20

_HEADER = struct.Struct("<4sI4xII56x8I")
_HEADER_SIZE, _BYTES = 124, 128
_DXT10 = 20
_ALPHA_PIXELS, _ALPHA, _FOURCC, _INDEXED, _RGB, _LUMINANCE = 0x1, 0x2, 0x4, 0x20, 0x40, 0x20000
_BITS = {8, 16, 24, 32}


class Blocks(Enum):
    """A compression of 4 x 4 pixels each."""

    BC1 = 1
    BC2 = 2
    BC3 = 3
    BC4 = 4
    BC4_SIGNED = 5
    BC5 = 6
    BC5_SIGNED = 7

    @property
    def size(self) -> int:
        """Bytes of a block."""
        return 8 if self in {Blocks.BC1, Blocks.BC4, Blocks.BC4_SIGNED} else 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """A pixel of ``bits`` whose bands are the bits of the ``colours`` (one or three) and of ``alpha``, 0 if
    there is none. Without colours it is alpha only.
    """

    bits: int
    colours: tuple[int, ...]
    alpha: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """A pixel of one byte, the index of a colour in a table of 256 that is stored before the pixels."""

    size: int = 1024


Layout = Blocks | Masks | Palette

_NAMES: dict[bytes, tuple[Layout, bool]] = {
    b"DXT1": (Blocks.BC1, False),
    b"DXT2": (Blocks.BC2, True),
    b"DXT3": (Blocks.BC2, False),
    b"DXT4": (Blocks.BC3, True),
    b"DXT5": (Blocks.BC3, False),
    b"ATI1": (Blocks.BC4, False),
    b"BC4U": (Blocks.BC4, False),
    b"BC4S": (Blocks.BC4_SIGNED, False),
    b"BC5S": (Blocks.BC5_SIGNED, False),
    b"ATI2": (Blocks.BC5, False),
    b"BC5U": (Blocks.BC5, False),
    # Numbers of D3DFORMAT.
    b"\x32\0\0\0": (Masks(bits=8, colours=(0xFF,)), False),
    b"\x33\0\0\0": (Masks(bits=16, colours=(0xFF,), alpha=0xFF00), False),
    b"\x51\0\0\0": (Masks(bits=16, colours=(0xFFFF,)), False),
}
"""Compressions by their four letters, and whether the colours are multiplied by alpha."""

_RGB8, _BGR8 = (0xFF, 0xFF00, 0xFF0000), (0xFF0000, 0xFF00, 0xFF)
_ALPHA8 = 0xFF000000
_DXGI: dict[int, Layout] = {
    **dict.fromkeys((70, 71, 72), Blocks.BC1),
    **dict.fromkeys((73, 74, 75), Blocks.BC2),
    **dict.fromkeys((76, 77, 78), Blocks.BC3),
    **dict.fromkeys((79, 80), Blocks.BC4),
    **dict.fromkeys((82, 83), Blocks.BC5),
    **dict.fromkeys((23, 24), Masks(bits=32, colours=(0x3FF, 0xFFC00, 0x3FF00000), alpha=0xC0000000)),
    **dict.fromkeys((27, 28, 29), Masks(bits=32, colours=_RGB8, alpha=_ALPHA8)),
    **dict.fromkeys((87, 90, 91), Masks(bits=32, colours=_BGR8, alpha=_ALPHA8)),
    **dict.fromkeys((88, 92, 93), Masks(bits=32, colours=_BGR8)),
    **dict.fromkeys((53, 56), Masks(bits=16, colours=(0xFFFF,))),
    **dict.fromkeys((60, 61), Masks(bits=8, colours=(0xFF,))),
    81: Blocks.BC4_SIGNED,
    84: Blocks.BC5_SIGNED,
    65: Masks(bits=8, colours=(), alpha=0xFF),
    85: Masks(bits=16, colours=(0xF800, 0x07E0, 0x001F)),
    86: Masks(bits=16, colours=(0x7C00, 0x03E0, 0x001F), alpha=0x8000),
    115: Masks(bits=16, colours=(0x0F00, 0x00F0, 0x000F), alpha=0xF000),
}
"""By the number of DXGI_FORMAT."""

_DXGI_NAMES = {2: "floats", 10: "half floats", 95: "BC6H", 96: "BC6H", 98: "BC7", 99: "BC7"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DdsHeader:
    """``offset`` is where the pixels begin, or the palette before them. ``is_premultiplied``: the colours are
    multiplied by alpha.
    """

    width: int
    height: int
    layout: Layout
    is_premultiplied: bool
    offset: int


def parse_header(data: bytes) -> DdsHeader:
    """Parse the first ``MAX_HEADER`` bytes of a file, whose first surface is the one at its full size.

    Raises ``CorruptImage``, ``UnsupportedFormat`` and ``TooLarge``.
    """
    if len(data) < _BYTES:
        raise CorruptImage("this dds ends within its header")
    _, size, height, width, _, flags, letters, *numbers = _HEADER.unpack_from(data)
    if size != _HEADER_SIZE or width == 0 or height == 0:
        raise CorruptImage(
            f"this dds has a header of {size} bytes, and an impossible size of {width} x {height}"
        )
    check_sides("dds", width, height)
    name = letters.to_bytes(4, "little")
    offset, is_premultiplied = _BYTES, False
    layout: Layout | None
    if flags & _FOURCC and name == b"DX10":
        if len(data) < _BYTES + _DXT10:
            raise CorruptImage("this dds ends within its header")
        number = int.from_bytes(data[_BYTES : _BYTES + 4], "little")
        layout, offset = _DXGI.get(number), _BYTES + _DXT10
        what = f"of {_DXGI_NAMES.get(number, f'DXGI format {number}')}"
    elif flags & _FOURCC:
        layout, is_premultiplied = _NAMES.get(name, (None, False))
        what = f"compressed as {name!r}"
    else:
        layout = _uncompressed(flags, *numbers)
        what = f"of {numbers[0]} bits with the flags {flags:#x}"
    if layout is None:
        raise UnsupportedFormat(f"this dds is {what}, which vipsrv does not read")
    return DdsHeader(
        width=width, height=height, layout=layout, is_premultiplied=is_premultiplied, offset=offset
    )


def _uncompressed(flags: int, bits: int, red: int, green: int, blue: int, alpha: int) -> Layout | None:
    if flags & _INDEXED:
        return Palette()
    if bits not in _BITS:
        return None
    every = (1 << bits) - 1
    # Some writers state a mask for alpha that a small pixel has no bits for.
    alpha = alpha & every if flags & (_ALPHA_PIXELS | _ALPHA) else 0
    if flags & _LUMINANCE:
        masks = Masks(bits=bits, colours=(red & every or every & ~alpha,), alpha=alpha)
    elif flags & _RGB:
        masks = Masks(bits=bits, colours=(red, green, blue), alpha=alpha)
    elif flags & _ALPHA:
        masks = Masks(bits=bits, colours=(), alpha=alpha or every)
    else:
        return None
    taken = 0
    for mask in (*masks.colours, masks.alpha):
        # The bits of a mask are contiguous, so adding its lowest bit carries through all of them.
        if mask & (mask + (mask & -mask)) or mask & taken or mask >> bits:
            raise CorruptImage(f"this dds has the impossible mask {mask:#x}")
        taken |= mask
    if taken == 0:
        raise CorruptImage("this dds has no mask for its colours")
    return masks
