"""Formats that are read if this libvips has a loader for them; the libvips of pyvips' wheel has none. So are
those of ``jp2.py`` and ``drawings.py``.

They are read only if ``--formats`` names them where libvips marks their loaders as untrusted: always those of
SVG and PDF, and before libvips 8.18 those of JPEG XL and JPEG 2000.

The memory of a decoder is that of ``whole_image_pixel``, 21 bytes per pixel: with the libraries of Debian 13
(libjxl 0.11, OpenJPEG 2.5, librsvg 2.60, Poppler 25.03) a gradient and noise of 4000 x 3000 took 6 to 9.
"""

from vipsrv.pipeline.formats import samples
from vipsrv.pipeline.formats.base import (
    DecodeCost,
    DecodeRequest,
    ImageFormat,
    LibvipsReader,
    signature,
    whole_image_pixel,
)


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
    ),
)
