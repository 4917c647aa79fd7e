"""Windows icons and cursors: a directory of images, each a PNG, or a bitmap followed by a 1-bit mask.

The largest image is read; among equally large ones the one with the most bits. The sizes in the directory are
not relied on, because many writers get them wrong. The mask may be missing, and it is used for an image of 32
bits only if no pixel has any alpha, as Windows does. Source: Microsoft, "Icons" (the structures ICONDIR and
ICONDIRENTRY).
"""

import re
import struct
from bisect import bisect_right
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
from vipsrv.pipeline.formats.bmp.header import FILE_HEADER, MAX_HEADER, BmpHeader, parse_header
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
_FILE_HEAD = b"BM"
_PNG_END = b"IEND"
_TRUNCATED = "this ico is truncated: its largest image extends beyond the end of the file"
_INFO_HEADER = struct.pack("<I", 40)
_SIZES_END = 24
"""Bytes up to the end of the width and height of a PNG and of a bitmap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """An image in the directory: ``pixels``, ``bits`` per pixel and the ``height`` that the directory states,
    ``offset`` and ``size`` in bytes; ``room`` is the bytes up to the next image or the end of the file.
    """

    pixels: int
    bits: int
    height: int
    offset: int
    size: int
    room: int


def open_ico(upload: Upload, *, tolerant: bool, watch: StopCheck | None) -> BuiltinImage:
    """Read the largest image's header. Raises ``CorruptImage``, ``UnsupportedFormat`` and ``TooLarge``."""
    entry = _largest(upload)
    if entry.room <= 0:
        raise CorruptImage("this ico is truncated: its largest image begins behind the end of the file")
    view = upload.view()[entry.offset : entry.offset + entry.room]
    is_cut = entry.size > entry.room and not tolerant
    if view[: len(png.MAGIC)] == png.MAGIC:
        if is_cut and _PNG_END not in bytes(view):
            raise CorruptImage(_TRUNCATED)
        return _open_png(view, tolerant=tolerant)
    size = entry.size
    if view[:2] == _FILE_HEAD:  # a whole file of a bitmap
        view, size = view[FILE_HEADER:], size - FILE_HEADER
    header = _bitmap_header(view, entry)
    if is_cut and header.offset + header.stride * header.height > len(view):
        raise CorruptImage(_TRUNCATED)
    if header.bits == _WITH_ALPHA:
        # The fourth byte is alpha here; the mask is for programs that cannot use it.
        header = replace(header, masks=(*header.masks[:3], _ALPHA))
    return BuiltinImage(
        width=header.width,
        height=header.height,
        has_alpha=True,
        build=lambda: _with_mask(view, header, size, tolerant=tolerant, watch=watch),
    )


def _bitmap_header(view: memoryview, entry: _Entry) -> BmpHeader:
    """The header of a bitmap, of whose rows the lower half are those of the mask."""
    data = bytes(view[:MAX_HEADER])
    header = parse_header(data, None, in_icon=True)
    if header.height * 2 == entry.height:
        # Some writers state the height of the image alone.
        whole = parse_header(data, None)
        if whole.offset + whole.stride * whole.height <= len(view):
            return whole
    return header


def _largest(upload: Upload) -> _Entry:
    head = upload.head(_DIRECTORY.size + _MAX_ENTRIES * _ENTRY.size)
    kind, count = _DIRECTORY.unpack_from(head)
    if len(head) < _DIRECTORY.size + min(count, _MAX_ENTRIES) * _ENTRY.size or count == 0:
        raise CorruptImage("this ico ends within its directory, or has no image")
    listed = [
        _ENTRY.unpack_from(head, _DIRECTORY.size + index * _ENTRY.size)
        for index in range(min(count, _MAX_ENTRIES))
    ]
    ends = sorted({upload.size, *(offset for *_, offset in listed)})
    entries = []
    for width, height, _colours, _reserved, _planes, bits, size, offset in listed:
        after = bisect_right(ends, offset)
        entries.append(
            _Entry(
                # A side of 256 pixels does not fit into its byte and is stored as 0.
                pixels=_pixels_in(upload.read(offset, _SIZES_END)) or (width or 256) * (height or 256),
                height=height or 256,
                bits=bits if kind == _ICON else 0,  # a cursor has none
                offset=offset,
                size=size,
                room=min(ends[after] if after < len(ends) else 0, upload.size) - offset,
            )
        )
    return max(entries, key=lambda entry: (entry.pixels, entry.bits))


def _pixels_in(head: bytes) -> int | None:
    """The pixels of the image that begins with ``head``; ``None`` if it is not a usual one."""
    if len(head) < _SIZES_END:
        return None
    if head.startswith(png.MAGIC):
        width, height = struct.unpack_from(">II", head, 16)
    elif head.startswith(_INFO_HEADER):
        width, height = struct.unpack_from("<ii", head, 4)
        height = abs(height) // 2
    else:
        return None
    return width * height if width > 0 else None


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
    view: memoryview, header: BmpHeader, size: int, *, tolerant: bool, watch: StopCheck | None
) -> pyvips.Image:
    """The bitmap with its alpha, or with that of its mask, if there is one within ``size`` bytes."""
    image = open_dib(view, header, tolerant=tolerant, watch=watch)
    if image.hasalpha():
        if image[3].max():
            return image
        image = image.extract_band(0, n=3)
    elif header.is_bgr:
        image = image[2].bandjoin([image[1], image[0]]).copy(interpretation="srgb")
    mask = _mask(view, header, size, tolerant=tolerant)
    if mask is None:
        return image.bandjoin(255)
    return image.bandjoin(mask if header.top_down else mask.flip("vertical"))


def _mask(view: memoryview, header: BmpHeader, size: int, *, tolerant: bool) -> pyvips.Image | None:
    layout = RowLayout(
        offset=header.offset + header.stride * header.height,
        stride=(header.width + 31) // 32 * 4,
        used=(header.width + 7) // 8,
        height=header.height,
    )
    end = layout.offset + layout.stride * (layout.height - 1) + layout.used
    # A size that does not even hold the image is wrong.
    is_stated = size >= end or size < layout.offset
    if not is_stated or (len(view) < end and (size < end or tolerant)):
        return None
    rows = read_rows(view, layout, "ico", tolerant=False)
    return to_colours(rows, 1, header.width, _OPAQUE_AND_TRANSPARENT)


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
