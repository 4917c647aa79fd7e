"""Formats that are read if this libvips has a loader for them; the libvips of pyvips' wheel has none.

SVG, PDF and Radiance HDR are read only if ``--formats`` names them, because libvips marks their loaders as
untrusted.
"""

from vipsrv.pipeline.formats.base import ImageFormat, LibvipsReader, Trial, signature

FORMATS = (
    ImageFormat(
        name="jxl",
        order=80,
        signatures=(signature("JPEG XL", rb"\0\0\0\x0cJXL |\xff\x0a"),),
        reader=LibvipsReader(
            loader="jxlload_source", family="VipsForeignLoadJxl", trial=Trial(saver="jxlsave_buffer")
        ),
    ),
    ImageFormat(
        name="jp2",
        order=90,
        signatures=(signature("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),),
        reader=LibvipsReader(
            loader="jp2kload_source", family="VipsForeignLoadJp2k", trial=Trial(saver="jp2ksave_buffer")
        ),
    ),
    ImageFormat(
        name="svg",
        order=100,
        signatures=(signature("SVG", rb"(\xef\xbb\xbf)?\s*(<\?xml.*|<!--.*|<!DOCTYPE svg.*)?<svg[\s>]"),),
        reader=LibvipsReader(loader="svgload_source", family="VipsForeignLoadSvg"),
    ),
    ImageFormat(
        name="pdf",
        order=110,
        signatures=(signature("PDF", rb"%PDF-"),),
        reader=LibvipsReader(loader="pdfload_source", family="VipsForeignLoadPdf"),
    ),
    ImageFormat(
        name="hdr",
        order=120,
        signatures=(signature("Radiance HDR", rb"#\?R"),),
        reader=LibvipsReader(loader="radload_source", family="VipsForeignLoadRad"),
    ),
)
