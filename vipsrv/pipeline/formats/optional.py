"""Formats that are read, and JPEG XL written, if this libvips can; that of pyvips' wheel cannot. So are
those of ``jp2.py`` and ``drawings.py``.

They are read only if ``--formats`` names them where libvips marks their loaders as untrusted: always those of
SVG and PDF, and before libvips 8.18 those of JPEG XL and JPEG 2000.

The memory of a decoder is that of ``whole_image_pixel``, 21 bytes per pixel: with the libraries of Debian 13
(libjxl 0.11, OpenJPEG 2.5, librsvg 2.60, Poppler 25.03) a gradient and noise of 4000 x 3000 took 6 to 9.
"""

from vipsrv.options import Chroma, Format
from vipsrv.pipeline.formats import samples
from vipsrv.pipeline.formats.base import (
    DecodeCost,
    DecodeRequest,
    ImageFormat,
    LibvipsReader,
    signature,
    whole_image_pixel,
)
from vipsrv.pipeline.formats.writer import EncodeCost, EncoderEffort, Writer


def _jxl_cost(request: DecodeRequest) -> DecodeCost:
    return DecodeCost(seconds=0.003, held=request.pixels * whole_image_pixel(request.header))


FORMATS = (
    ImageFormat(
        name="jxl",
        order=80,
        signatures=(signature("JPEG XL", rb"\0\0\0\x0cJXL |\xff\x0a"),),
        reader=LibvipsReader(
            loader="jxlload_source",
            family="VipsForeignLoadJxl",
            sample=samples.JXL,
            decode_cost=_jxl_cost,
        ),
        writer=Writer(
            format=Format.JXL,
            saver="jxlsave_buffer",
            untrusted_family="VipsForeignSaveJxl",  # before libvips 8.18
            lossy=True,
            lossless=True,
            alpha=True,
            # libvips' default, 7, takes 1.6 times the time for the same SSIM and 2 % more bytes:
            # docs/decisions/0058-how-results-are-encoded.md.
            options={"effort": 5},
            effort=EncoderEffort(
                argument="effort",
                values=(1, 1, 2, 3, 4, 5, 6, 7, 8, 9),
                times=(0.2, 0.2, 0.2, 0.25, 0.3, 1, 1.3, 1.6, 10, 20),
                lossless_times=(0.1, 0.1, 0.1, 0.15, 0.8, 1, 1.1, 1.5, 1.5, 1.5),
            ),
            # Colours are stored as XYB, each at its full size.
            chroma={Chroma.AUTO: {}, Chroma.FULL: {}},
            cost=EncodeCost(pixel=54, alpha=20, seconds=0.026),
            lossless_cost=EncodeCost(pixel=93, alpha=41, seconds=0.2),
        ),
    ),
)
