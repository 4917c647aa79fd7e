"""DIB: a Windows or OS/2 bitmap without its file header, as programs keep it in memory.

It has no magic number: it is recognised, if no other reader claims the file, by an info header that is valid.
The reader is that of ``bmp``.
"""

import re

from vipsrv.errors import CorruptImage, TooLarge, UnsupportedFormat
from vipsrv.pipeline.formats.base import (
    BuiltinImage,
    BuiltinReader,
    DecodeCost,
    DecodeRequest,
    ImageFormat,
    Signature,
    parsed_file_cost,
    streamed_rows_cost,
)
from vipsrv.pipeline.formats.bmp.header import MAX_HEADER, Compression, parse_header
from vipsrv.pipeline.formats.bmp.pixels import open_dib
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.stopping import StopCheck

_PATTERN = re.compile(
    # The size of the header, width and height, one plane, and the bits of a pixel.
    rb"\x0c\0\0\0(?!\0\0)..(?!\0\0)..\x01\0[\x01\x04\x08\x18]\0"
    rb"|[\x28\x34\x38\x40\x6c\x7c]\0\0\0(?!\0{4}).{3}\0(?!\0{4}).{3}[\0\xff]\x01\0[\x01\x02\x04\x08\x10\x18\x20]\0"
    rb"[\0-\x06]\0\0\0",
    re.DOTALL,
)
_RUNS = {Compression.RLE4, Compression.RLE8}


def open_headerless(upload: Upload, *, tolerant: bool, watch: StopCheck | None) -> BuiltinImage:
    """Read a file's header. Raises ``CorruptImage``, ``UnsupportedFormat`` and ``TooLarge``."""
    header = parse_header(upload.head(MAX_HEADER), None)
    return BuiltinImage(
        width=header.width,
        height=header.height,
        has_alpha=header.masks[3] != 0,
        build=lambda: open_dib(upload.view(), header, tolerant=tolerant, watch=watch),
        is_bgr=header.is_bgr,
    )


def _recognises(upload: Upload, head: bytes) -> bool:
    if not _PATTERN.match(head):
        return False
    try:
        parse_header(upload.head(MAX_HEADER), None)
    except CorruptImage:
        return False
    except (TooLarge, UnsupportedFormat):
        pass
    return True


def _decode_cost(request: DecodeRequest) -> DecodeCost:
    header = parse_header(request.upload.head(MAX_HEADER), None)
    return (parsed_file_cost if header.compression in _RUNS else streamed_rows_cost)(request)


DIB = ImageFormat(
    name="dib",
    order=890,
    signatures=(Signature("DIB", _PATTERN),),
    reader=BuiltinReader(
        recognises=_recognises, open=open_headerless, has_magic=False, decode_cost=_decode_cost
    ),
)

FORMATS = (DIB,)
