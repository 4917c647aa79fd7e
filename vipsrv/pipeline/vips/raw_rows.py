"""Turn the uncompressed rows of a file into a libvips image without copying them.

libvips reads the rows when it computes. They are passed by ``new_from_memory``, which is not a loader, so
that ``rawload``, which libvips marks as untrusted, stays blocked. Operations that stream convert pixels of
several bytes, and bytes of several pixels.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import pyvips

from vipsrv.errors import CorruptImage

_BYTE_VALUES = 256
_BITS_A_BYTE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLayout:
    """The position of the rows in bytes: the first begins at ``offset``, the next one ``stride`` further. The
    first ``used`` bytes of a row are pixels of ``pixel`` bytes each; the rest is padding.
    """

    offset: int
    stride: int
    used: int
    height: int
    pixel: int = 1


def read_rows(view: memoryview, layout: RowLayout, name: str, *, tolerant: bool) -> pyvips.Image:
    """Make an image of the rows, with a band for each byte of a pixel. Messages call the format ``name``.

    Missing rows at the end of the file raise ``CorruptImage``; if ``tolerant``, they are 0. The padding of
    the last row may always be missing, the first row never.
    """
    there = max(0, len(view) - layout.offset)
    needed = layout.stride * (layout.height - 1) + layout.used
    if there < (layout.used if tolerant else needed):
        raise CorruptImage(
            f"this {name} is truncated: its rows take {needed} bytes, of which the file has {there}"
        )
    # Folding bytes into pixels copies them, so do it only if the padding is not a whole number of pixels.
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
    """Combine each ``size`` bytes of a pixel (2 or 4) into one unsigned integer."""
    formats = {2: "ushort", 4: "uint"}
    numbers = rows.copy(bands=rows.bands // size, format=formats[size])
    return numbers if byteorder == sys.byteorder else numbers.byteswap()


def to_colours(rows: pyvips.Image, bits: int, width: int, colours: Sequence[bytes]) -> pyvips.Image:
    """Replace each palette index of ``bits`` (1, 2, 4 or 8, most significant first) by its colour, one band
    per byte. An index that has no colour becomes black.
    """
    bands = len(colours[0])
    full = [*colours, *[bytes(bands)] * ((1 << bits) - len(colours))]
    shifts = range(_BITS_A_BYTE - bits, -1, -bits)
    mask = (1 << bits) - 1
    # First all pixels of a byte become the bands of one pixel.
    table = b"".join(full[byte >> shift & mask] for byte in range(_BYTE_VALUES) for shift in shifts)
    lut = pyvips.Image.new_from_memory(table, _BYTE_VALUES, 1, bands * len(shifts), "uchar")
    image = rows.maplut(lut)
    if len(shifts) > 1:
        image = image.bandunfold(factor=len(shifts)).crop(0, 0, width, rows.height)
    return image


def split_by_masks(numbers: pyvips.Image, masks: Sequence[int]) -> pyvips.Image:
    """Return a band for each mask: its bits, scaled to 8 bits, so that their highest value becomes 255."""
    first, *others = (
        # libvips takes the mask as a signed integer of 32 bits.
        (numbers & (mask if mask < 1 << 31 else mask - (1 << 32))).linear(255 / (mask or 1), 0.5, uchar=True)
        for mask in masks
    )
    return first.bandjoin(others) if others else first
