"""Windows and OS/2 bitmaps, for which libvips has no trusted reader.

==============  ==================================================================
``header``      reads and checks every field
``pixels``      makes the image, by libvips operations on the rows of the file
``rle``         decodes the run-length compressed kinds into memory
==============  ==================================================================

Sources: Microsoft, "Bitmap Storage" and the structures it names (BITMAPCOREHEADER, BITMAPINFOHEADER,
BITMAPV4HEADER, BITMAPV5HEADER); for the OS/2 headers the comments of Jason Summers' bmpsuite.
"""

from vipsrv.pipeline.formats.base import (
    BuiltinReader,
    DecodeCost,
    DecodeRequest,
    ImageFormat,
    parsed_file_cost,
    signature,
    streamed_rows_cost,
)
from vipsrv.pipeline.formats.bmp.header import is_run_length_encoded
from vipsrv.pipeline.formats.bmp.pixels import open_bmp


def _decode_cost(request: DecodeRequest) -> DecodeCost:
    cost = parsed_file_cost if is_run_length_encoded(request.upload) else streamed_rows_cost
    return cost(request)


BMP = ImageFormat(
    name="bmp",
    order=200,
    signatures=(
        signature("BMP", rb"BM"),
        signature("OS/2 bitmap array", rb"BA....\0\0\0\0.{4}(BM|IC|PT|CI|CP)", is_read=False),
    ),
    reader=BuiltinReader(
        recognises=lambda _upload, head: head.startswith(b"BM"), open=open_bmp, decode_cost=_decode_cost
    ),
)

FORMATS = (BMP,)
