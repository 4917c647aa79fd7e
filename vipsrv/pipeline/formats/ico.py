"""Windows icons and cursors: a directory of images, each a PNG, or a bitmap followed by a 1-bit mask.

The largest image is read; among equally large ones the one with the most bits. Source: Microsoft, "Icons"
(the structures ICONDIR and ICONDIRENTRY).
"""

import re
import struct
from dataclasses import dataclass, replace

import pyvips

from vipsrv.errors import CorruptImage
from vipsrv.pipeline.formats import png
from vipsrv.pipeline.formats.base import (
    BuiltinImage,
    BuiltinReader,
    ImageFormat,
    parsed_file_cost,
    signature,
)
from vipsrv.pipeline.formats.bmp.header import MAX_HEADER, BmpHeader, parse_header
from vipsrv.pipeline.formats.bmp.pixels import open_dib
from vipsrv.pipeline.formats.png.chunks import read_notes
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.errors import reason
from vipsrv.pipeline.vips.raw_rows import RowLayout, read_rows, to_colours
from vipsrv.pipeline.vips.stopping import StopCheck

_DIRECTORY = struct.Struct("<2xHH")
_ENTRY = struct.Struct("<BBBBHHII")
_ICON = 1
_MAX_ENTRIES = 1024
_WITH_ALPHA = 32
_ALPHA = 0xFF000000
_OPAQUE_AND_TRANSPARENT = (b"\xff", b"\0")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """An image in the directory: ``pixels``, ``bits`` per pixel, ``offset`` and ``size`` in bytes."""

    pixels: int
    bits: int
    offset: int
    size: int


def open_ico(upload: Upload, *, tolerant: bool, watch: StopCheck | None) -> BuiltinImage:
    """Read the largest image's header. Raises ``CorruptImage``, ``UnsupportedFormat`` and ``TooLarge``."""
    entry = _largest(upload)
    view = upload.view()[entry.offset : entry.offset + entry.size]
    if len(view) < entry.size and not tolerant:
        raise CorruptImage("this ico is truncated: its largest image extends beyond the end of the file")
    if view[: len(png.MAGIC)] == png.MAGIC:
        return _open_png(view, tolerant=tolerant)
    header = parse_header(bytes(view[:MAX_HEADER]), None, in_icon=True)
    if header.bits == _WITH_ALPHA:
        # The fourth byte is alpha here; the mask is for programs that cannot use it.
        header = replace(header, masks=(*header.masks[:3], _ALPHA))
    return BuiltinImage(
        width=header.width,
        height=header.height,
        has_alpha=True,
        build=lambda: _with_mask(view, header, tolerant=tolerant, watch=watch),
    )


def _largest(upload: Upload) -> _Entry:
    head = upload.head(_DIRECTORY.size + _MAX_ENTRIES * _ENTRY.size)
    kind, count = _DIRECTORY.unpack_from(head)
    if len(head) < _DIRECTORY.size + min(count, _MAX_ENTRIES) * _ENTRY.size or count == 0:
        raise CorruptImage("this ico ends within its directory, or has no image")
    entries = []
    for index in range(min(count, _MAX_ENTRIES)):
        fields = _ENTRY.unpack_from(head, _DIRECTORY.size + index * _ENTRY.size)
        width, height, _colours, _reserved, _planes, bits, size, offset = fields
        # A side of 256 pixels does not fit into its byte and is stored as 0. A cursor has no number of bits.
        pixels = (width or 256) * (height or 256)
        entries.append(_Entry(pixels=pixels, bits=bits if kind == _ICON else 0, offset=offset, size=size))
    return max(entries, key=lambda entry: (entry.pixels, entry.bits))


def _open_png(view: memoryview, *, tolerant: bool) -> BuiltinImage:
    embedded = Upload.from_memory(view)
    metadata = png.check_metadata(embedded)
    try:
        image = pyvips.Operation.call(
            "pngload_source", embedded.source, access="sequential", fail_on="none" if tolerant else "error"
        )
    except pyvips.Error as error:
        raise CorruptImage(f"the png in this ico cannot be read: {reason(error)}") from error
    return BuiltinImage(
        width=image.width,
        height=image.height,
        has_alpha=bool(image.hasalpha()),
        build=lambda: image,
        embedded=("png", image),
        memory=embedded.size + metadata,
        notes=read_notes(embedded),
    )


def _with_mask(
    view: memoryview, header: BmpHeader, *, tolerant: bool, watch: StopCheck | None
) -> pyvips.Image:
    image = open_dib(view, header, tolerant=tolerant, watch=watch)
    if image.hasalpha():
        return image
    if header.is_bgr:
        image = image[2].bandjoin([image[1], image[0]]).copy(interpretation="srgb")
    stride = (header.width + 31) // 32 * 4
    layout = RowLayout(
        offset=header.offset + header.stride * header.height,
        stride=stride,
        used=(header.width + 7) // 8,
        height=header.height,
    )
    rows = read_rows(view, layout, "ico", tolerant=False)
    mask = to_colours(rows, 1, header.width, _OPAQUE_AND_TRANSPARENT)
    return image.bandjoin(mask if header.top_down else mask.flip("vertical"))


_BEGINNING = rb"\0\0[\x01\x02]\0[^\0]\0"
"""An icon or a cursor with 1 to 255 images."""

ICO = ImageFormat(
    name="ico",
    order=220,
    signatures=(signature("ICO", _BEGINNING),),
    reader=BuiltinReader(
        recognises=lambda _upload, head: re.match(_BEGINNING, head),
        open=open_ico,
        decode_cost=parsed_file_cost,
    ),
)

FORMATS = (ICO,)
