"""Windows icons and cursors: a directory of pictures, each a PNG or a bitmap followed by a mask of 1 bit.

The largest is read, of equal ones that of the most bits. Source: Microsoft, "Icons" (the structures ICONDIR
and ICONDIRENTRY).
"""

import struct
from dataclasses import dataclass, replace

import pyvips

from vipsrv.errors import CorruptImage
from vipsrv.pipeline import libvips
from vipsrv.pipeline.bmp.header import MOST_HEADER, BmpHeader, parse_header
from vipsrv.pipeline.bmp.pixels import open_dib
from vipsrv.pipeline.opened import Opened
from vipsrv.pipeline.opening import PNG, check_opening
from vipsrv.pipeline.rows import Layout, read_rows, to_pixels
from vipsrv.pipeline.stopping import Watch
from vipsrv.pipeline.upload import Upload

_DIRECTORY = struct.Struct("<2xHH")
_ENTRY = struct.Struct("<BBBBHHII")
_ICON = 1
_MOST_ENTRIES = 1024
_WITH_ALPHA = 32
_ALPHA = 0xFF000000
_OPAQUE_AND_CLEAR = (b"\xff", b"\0")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """``pixels`` and ``bits`` as the directory says them, ``offset`` and ``size`` in bytes."""

    pixels: int
    bits: int
    offset: int
    size: int


def open_ico(upload: Upload, *, tolerant: bool, watch: Watch | None) -> Opened:
    """The header of the largest picture. Raises ``CorruptImage``, ``UnsupportedFormat`` and ``TooLarge``."""
    entry = _largest(upload)
    view = upload.view()[entry.offset : entry.offset + entry.size]
    if len(view) < entry.size and not tolerant:
        raise CorruptImage("this ico is truncated: its largest picture lies behind its end")
    if view[: len(PNG)] == PNG:
        return _open_png(view, tolerant=tolerant)
    header = parse_header(bytes(view[:MOST_HEADER]), None, in_icon=True)
    if header.bits == _WITH_ALPHA:
        # The fourth byte is alpha here, and the mask is for those who cannot use that.
        header = replace(header, masks=(*header.masks[:3], _ALPHA))
    return Opened(
        width=header.width,
        height=header.height,
        has_alpha=True,
        picture=lambda: _with_mask(view, header, tolerant=tolerant, watch=watch),
    )


def _largest(upload: Upload) -> _Entry:
    head = upload.head(_DIRECTORY.size + _MOST_ENTRIES * _ENTRY.size)
    kind, count = _DIRECTORY.unpack_from(head)
    if len(head) < _DIRECTORY.size + min(count, _MOST_ENTRIES) * _ENTRY.size or count == 0:
        raise CorruptImage("this ico ends within its directory, or has no picture")
    entries = []
    for index in range(min(count, _MOST_ENTRIES)):
        fields = _ENTRY.unpack_from(head, _DIRECTORY.size + index * _ENTRY.size)
        width, height, _colours, _reserved, _planes, bits, size, offset = fields
        # A side of 256 pixels does not fit into its byte and is written as 0. A cursor has no bits here.
        pixels = (width or 256) * (height or 256)
        entries.append(_Entry(pixels=pixels, bits=bits if kind == _ICON else 0, offset=offset, size=size))
    return max(entries, key=lambda entry: (entry.pixels, entry.bits))


def _open_png(view: memoryview, *, tolerant: bool) -> Opened:
    png = Upload.from_memory(view)
    metadata = check_opening(png)
    try:
        image = pyvips.Operation.call(
            "pngload_source", png.source, access="sequential", fail_on="none" if tolerant else "error"
        )
    except pyvips.Error as error:
        raise CorruptImage(f"the png in this ico cannot be read: {libvips.reason(error)}") from error
    return Opened(
        width=image.width,
        height=image.height,
        has_alpha=bool(image.hasalpha()),
        picture=lambda: image,
        inner=image,
        memory=png.size + metadata,
    )


def _with_mask(view: memoryview, header: BmpHeader, *, tolerant: bool, watch: Watch | None) -> pyvips.Image:
    image = open_dib(view, header, tolerant=tolerant, watch=watch)
    if image.hasalpha():
        return image
    if header.is_bgr:
        image = image[2].bandjoin([image[1], image[0]]).copy(interpretation="srgb")
    stride = (header.width + 31) // 32 * 4
    layout = Layout(
        offset=header.offset + header.stride * header.height,
        stride=stride,
        used=(header.width + 7) // 8,
        height=header.height,
    )
    rows = read_rows(view, layout, "ico", tolerant=False)
    mask = to_pixels(rows, 1, header.width, _OPAQUE_AND_CLEAR)
    return image.bandjoin(mask if header.top_down else mask.flip("vertical"))
