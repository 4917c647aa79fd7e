"""Formats that are read if this libvips has a loader for them; the libvips of pyvips' wheel has none.

They are read only if ``--formats`` names them where libvips marks their loaders as untrusted: always those of
SVG, PDF and Radiance HDR, and before libvips 8.18 those of JPEG XL and JPEG 2000.

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

_JP2_COMPONENT = 8
"""Bytes for each component of a pixel: OpenJPEG keeps each as an int, and libvips a copy of them. A JPEG 2000
may have 16,384 components."""


def _drawn_cost(request: DecodeRequest) -> DecodeCost:
    """Return the cost of an SVG or a PDF, if it is a plain one: any may take until the deadline."""
    return DecodeCost(seconds=0.0018, held=request.pixels * whole_image_pixel(request.header))


def _jxl_cost(request: DecodeRequest) -> DecodeCost:
    return DecodeCost(seconds=0.003, held=request.pixels * whole_image_pixel(request.header))


def _jp2_cost(request: DecodeRequest) -> DecodeCost:
    header = request.header
    pixel = max(whole_image_pixel(header), _JP2_COMPONENT * header.shape.bands)
    return DecodeCost(seconds=0.013, held=request.pixels * pixel)


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
    ImageFormat(
        name="jp2",
        order=90,
        signatures=(signature("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),),
        reader=LibvipsReader(
            loader="jp2kload_source",
            family="VipsForeignLoadJp2k",
            sample=samples.JP2,
            decode_cost=_jp2_cost,
        ),
    ),
    ImageFormat(
        name="svg",
        order=100,
        signatures=(signature("SVG", rb"(\xef\xbb\xbf)?\s*(<\?xml.*|<!--.*|<!DOCTYPE svg.*)?<svg[\s>]"),),
        reader=LibvipsReader(
            loader="svgload_source",
            family="VipsForeignLoadSvg",
            sample=samples.SVG,
            decode_cost=_drawn_cost,
        ),
    ),
    ImageFormat(
        name="pdf",
        order=110,
        signatures=(signature("PDF", rb"%PDF-"),),
        reader=LibvipsReader(
            loader="pdfload_source",
            family="VipsForeignLoadPdf",
            sample=samples.PDF,
            decode_cost=_drawn_cost,
        ),
    ),
    ImageFormat(
        name="hdr",
        order=120,
        signatures=(signature("Radiance HDR", rb"#\?R"),),
        reader=LibvipsReader(loader="radload_source", family="VipsForeignLoadRad"),
    ),
)
