"""Adobe Photoshop documents (PSD) and large documents (PSB): the merged image, and no layer.

==============  =====================================================================================
``header``      finds the merged image, its alpha and its profile among the sections of the file
``pixels``      makes the image, by libvips operations that stream
==============  =====================================================================================
"""

from vipsrv.pipeline.formats.base import BuiltinReader, DecodeCost, DecodeRequest, ImageFormat, signature
from vipsrv.pipeline.formats.psd.header import Compression, parse_header
from vipsrv.pipeline.formats.psd.pixels import open_psd
from vipsrv.pipeline.vips.packbits_rows import LOADER_FAMILY

_SECONDS = 0.001
"""CPU seconds per million bytes of RGBA, about half of what packed rows take."""

_FLOAT_ROWS = 2_200 * 16
"""Bytes per pixel of the width: rows of floats that stream, beyond those of 8 bits."""

_INFLATED = 3
"""How many times the data of a channel are in memory when they are inflated: as such, as sums, in order."""


def _decode_cost(request: DecodeRequest) -> DecodeCost:
    header = parse_header(request.upload)
    held = float(header.width * _FLOAT_ROWS)
    if header.compression is Compression.PACKBITS:
        held += request.upload.size - header.offset
    elif header.compression is not Compression.RAW:
        held += _INFLATED * header.planes * header.height * header.row
    # A document without a merged image has a white one, which is read twice.
    return DecodeCost(held=held, seconds=_SECONDS)


PSD = ImageFormat(
    name="psd",
    order=230,
    signatures=(signature("Photoshop", rb"8BPS"),),
    reader=BuiltinReader(
        recognises=lambda _upload, head: head.startswith(b"8BPS"),
        open=open_psd,
        decode_cost=_decode_cost,
        loader_family=LOADER_FAMILY,
    ),
)

FORMATS = (PSD,)
