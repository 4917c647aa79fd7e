"""GIF: the first frame or another one, laid on the canvas of those before it."""

from vipsrv.options import Format, Keep
from vipsrv.pipeline.formats.base import (
    DecodeCost,
    DecodeRequest,
    ImageFormat,
    LibvipsReader,
    Trial,
    signature,
)
from vipsrv.pipeline.formats.gif.screen import as_shown, check_frames, open_frames
from vipsrv.pipeline.formats.writer import ANY_METADATA, EncodeCost, EncoderEffort, ProgressiveWriting, Writer

_CANVAS_BYTES = 4
"""Bytes per pixel of the canvas; for a later frame the canvas before it is also held."""


def _decode_cost(request: DecodeRequest) -> DecodeCost:
    canvases = 2 if request.page else 1
    # Each frame before the page is also decoded, and may be as large as the canvas or a single pixel.
    return DecodeCost(seconds=0.0013, held=request.pixels * _CANVAS_BYTES * canvases, frames=request.page + 1)


GIF = ImageFormat(
    name="gif",
    order=50,
    signatures=(signature("GIF", rb"GIF8[79]a"),),
    reader=LibvipsReader(
        loader="gifload_source",
        family="VipsForeignLoadNsgif",
        trial=Trial(saver="gifsave_buffer"),
        decodes_whole=True,
        check_metadata=check_frames,
        as_shown=as_shown,
        open_frames=open_frames,
        decode_cost=_decode_cost,
    ),
    writer=Writer(
        format=Format.GIF,
        saver="gifsave_buffer",
        # 800 × 600 in CPU ms and KB: effort 4: 487, 207; 7 (libvips' default): 1160, 181.
        options={"effort": 4},
        effort=EncoderEffort(
            argument="effort",
            values=(1, 1, 2, 3, 4, 5, 6, 7, 8, 9),
            times=(0.7, 0.7, 0.7, 0.7, 1, 1.3, 1.8, 1.9, 2.2, 2.4),
        ),
        progressive=ProgressiveWriting(argument="interlace", times=1, pixel=1),
        lossy=False,
        lossless=False,
        alpha=True,
        # One frame of the result for each of the source, also if two are equal.
        animation={"keep_duplicate_frames": True},
        max_delay=655_350,  # 16 bits of hundredths of a second
        keeps=ANY_METADATA - {Keep.EXIF, Keep.ICC},
        max_side=65_535,  # 16 bits
        cost=EncodeCost(pixel=10, base=24 << 20, seconds=0.1),
    ),
)

FORMATS = (GIF,)
