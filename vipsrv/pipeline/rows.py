"""Uncompressed rows of a file as a libvips image: nothing is copied, libvips reads them when it computes.

They enter by ``new_from_memory``, which is no loader: ``rawload``, which libvips marks as untrusted, stays
off. What takes several bytes a pixel, or several pixels a byte, is made of bytes by operations that stream.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import pyvips

from vipsrv.errors import CorruptImage

_BYTE_VALUES = 256
_BITS_A_BYTE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the rows lie in bytes: the first at ``offset``, each next one ``stride`` on, ``used`` of which
    are pixels.
    """

    offset: int
    stride: int
    used: int
    height: int


def read_rows(view: memoryview, layout: Layout, name: str, *, tolerant: bool) -> pyvips.Image:
    """The rows as bytes: one band, ``used`` wide, ``height`` high.

    What lacks at the end of the file raises ``CorruptImage``, or is 0 where ``tolerant``. The last row's
    padding may lack in any case, and the first row may not.
    """
    there = max(0, len(view) - layout.offset)
    needed = layout.stride * (layout.height - 1) + layout.used
    if there < (layout.used if tolerant else needed):
        raise CorruptImage(
            f"this {name} is truncated: its rows take {needed} bytes, of which {there} are there"
        )
    whole = min(layout.height, there // layout.stride)
    parts = []
    if whole:
        data = view[layout.offset : layout.offset + whole * layout.stride]
        parts.append(pyvips.Image.new_from_memory(data, layout.stride, whole, 1, "uchar"))
    if whole < layout.height:
        begun = bytes(view[layout.offset + whole * layout.stride :]).ljust(layout.stride, b"\0")
        parts.append(pyvips.Image.new_from_memory(begun, layout.stride, 1, 1, "uchar"))
        whole += 1
    if whole < layout.height:
        parts.append(pyvips.Image.black(layout.stride, layout.height - whole))
    image = parts[0]
    for part in parts[1:]:
        image = image.join(part, "vertical")
    if layout.used < layout.stride:
        image = image.crop(0, 0, layout.used, layout.height)
    return image


def to_bands(rows: pyvips.Image, bands: int) -> pyvips.Image:
    """Each ``bands`` bytes of a row become a pixel."""
    return rows if bands == 1 else rows.bandfold(factor=bands)


def to_numbers(rows: pyvips.Image, size: int, bands: int, byteorder: str) -> pyvips.Image:
    """Each ``bands`` unsigned integers of ``size`` bytes, 2 or 4, become a pixel."""
    formats = {2: "ushort", 4: "uint"}
    numbers = rows.bandfold(factor=size * bands).copy(bands=bands, format=formats[size])
    return numbers if byteorder == sys.byteorder else numbers.byteswap()


def to_pixels(rows: pyvips.Image, bits: int, width: int, colours: Sequence[bytes]) -> pyvips.Image:
    """Each number of ``bits`` (1, 2, 4 or 8, the first one the highest) becomes its colour, a band a byte.

    A number that has no colour is black.
    """
    bands = len(colours[0])
    full = [*colours, *[bytes(bands)] * ((1 << bits) - len(colours))]
    shifts = range(_BITS_A_BYTE - bits, -1, -bits)
    mask = (1 << bits) - 1
    # A byte's pixels lie beside each other as bands of one pixel first.
    table = b"".join(full[byte >> shift & mask] for byte in range(_BYTE_VALUES) for shift in shifts)
    lut = pyvips.Image.new_from_memory(table, _BYTE_VALUES, 1, bands * len(shifts), "uchar")
    image = rows.maplut(lut)
    if len(shifts) > 1:
        image = image.bandunfold(factor=len(shifts)).crop(0, 0, width, rows.height)
    return image
