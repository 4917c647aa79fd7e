"""DirectDraw surfaces (DDS), the textures of games: uncompressed, or in blocks (BC1 to BC5, DXT1 to DXT5).

==============  =====================================================================================
``header``      what the pixels are, of the many ways to say so
``pixels``      makes the image: uncompressed rows stream
``blocks``      decompresses blocks into memory
==============  =====================================================================================

A file may hold several surfaces: smaller versions of the image, the sides of a cube, slices of a volume. The
first one is read.
"""

from vipsrv.pipeline.formats.base import (
    BuiltinReader,
    DecodeCost,
    DecodeRequest,
    ImageFormat,
    signature,
    streamed_rows_cost,
)
from vipsrv.pipeline.formats.dds.header import MAX_HEADER, Blocks, parse_header
from vipsrv.pipeline.formats.dds.pixels import open_dds

_SECONDS = 0.0015
"""CPU seconds per million bytes of RGBA, about half of what blocks take."""

_WHILE_DECOMPRESSING = 48 << 20
"""Bytes at most for the blocks that are decompressed at once."""

_PER_PIXEL = 48


def _decode_cost(request: DecodeRequest) -> DecodeCost:
    header = parse_header(request.upload.head(MAX_HEADER))
    if not isinstance(header.layout, Blocks):
        return streamed_rows_cost(request)
    working = min(_WHILE_DECOMPRESSING, request.pixels * _PER_PIXEL)
    return DecodeCost(held=request.pixels * request.header.pixel_bytes + working, seconds=_SECONDS)


DDS = ImageFormat(
    name="dds",
    order=240,
    signatures=(signature("DDS", rb"DDS \x7c\0\0\0"),),
    reader=BuiltinReader(
        recognises=lambda _upload, head: head.startswith(b"DDS \x7c\0\0\0"),
        open=open_dds,
        decode_cost=_decode_cost,
    ),
)

FORMATS = (DDS,)
