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
    are pixels, of ``pixel`` bytes each.
    """

    offset: int
    stride: int
    used: int
    height: int
    pixel: int = 1


def read_rows(view: memoryview, layout: Layout, name: str, *, tolerant: bool) -> pyvips.Image:
    """The rows, a band for each byte of a pixel.

    What lacks at the end of the file raises ``CorruptImage``, or is 0 where ``tolerant``. The last row's
    padding may lack in any case, and the first row may not.
    """
    there = max(0, len(view) - layout.offset)
    needed = layout.stride * (layout.height - 1) + layout.used
    if there < (layout.used if tolerant else needed):
        raise CorruptImage(
            f"this {name} is truncated: its rows take {needed} bytes, of which {there} are there"
        )
    # Folding bytes into pixels copies them, so that is only for rows whose padding is no whole pixel.
    bands = 1 if layout.stride % layout.pixel else layout.pixel
    width = layout.stride // bands
    whole = min(layout.height, there // layout.stride)
    parts = []
    if whole:
        data = view[layout.offset : layout.offset + whole * layout.stride]
        parts.append(pyvips.Image.new_from_memory(data, width, whole, bands, "uchar"))
    if whole < layout.height:
        begun = bytes(view[layout.offset + whole * layout.stride :]).ljust(layout.stride, b"\0")
        parts.append(pyvips.Image.new_from_memory(begun, width, 1, bands, "uchar"))
        whole += 1
    if whole < layout.height:
        parts.append(pyvips.Image.black(width, layout.height - whole, bands=bands))
    image = parts[0]
    for part in parts[1:]:
        image = image.join(part, "vertical")
    if layout.used < layout.stride:
        image = image.crop(0, 0, layout.used // bands, layout.height)
    return image if bands == layout.pixel else image.bandfold(factor=layout.pixel)


def to_numbers(rows: pyvips.Image, size: int, byteorder: str) -> pyvips.Image:
    """Each ``size`` bytes of a pixel, 2 or 4, become an unsigned integer."""
    formats = {2: "ushort", 4: "uint"}
    numbers = rows.copy(bands=rows.bands // size, format=formats[size])
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
