"""Raw: the bytes of the pixels and nothing else, row by row."""

from vipsrv.options import Format, Keep
from vipsrv.pipeline.formats.base import EncodeCost, ImageFormat, Writer

RAW = ImageFormat(
    name="raw",
    order=65,
    writer=Writer(
        format=Format.RAW,
        saver="rawsave_buffer",
        lossy=False,
        lossless=True,
        alpha=True,
        keeps=frozenset({Keep.NONE}),
        cost=EncodeCost(pixel=2, seconds=0.001),
    ),
)

FORMATS = (RAW,)
