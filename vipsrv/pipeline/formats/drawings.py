"""SVG and PDF, which are read if ``--formats`` names them and this libvips has a loader: they are drawn.

What a drawing takes cannot be predicted: the deadline and the limits of the worker bound it. An SVG becomes a
tree in memory when its header is read, so the number of its elements is bounded before.
"""

from vipsrv.errors import TooLarge
from vipsrv.pipeline.formats import samples
from vipsrv.pipeline.formats.base import (
    DecodeCost,
    DecodeRequest,
    ImageFormat,
    LibvipsReader,
    signature,
    whole_image_pixel,
)
from vipsrv.pipeline.upload import Upload

_MAX_SVG = 16 << 20
"""Bytes of an SVG, all of which librsvg holds."""

_ELEMENT = 1_700
"""Bytes for an element in librsvg 2.60, as measured: 1,400 to 1,750. Attributes take less than their text."""

_MAX_ELEMENTS = 100_000
"""Elements of an SVG, for which librsvg takes 0.3 s."""


def _check_elements(upload: Upload) -> int:
    if upload.size > _MAX_SVG:
        raise TooLarge(f"the SVG has {upload.size} bytes; {_MAX_SVG} are allowed")
    text = upload.read(0, upload.size)
    elements = text.count(b"<") - text.count(b"</")
    if elements > _MAX_ELEMENTS:
        raise TooLarge(f"the SVG has {elements} elements; {_MAX_ELEMENTS} are allowed")
    return elements * _ELEMENT + upload.size


def _decode_cost(request: DecodeRequest) -> DecodeCost:
    """Return the cost of a plain drawing."""
    return DecodeCost(seconds=0.0018, held=request.pixels * whole_image_pixel(request.header))


FORMATS = (
    ImageFormat(
        name="svg",
        order=100,
        signatures=(signature("SVG", rb"(\xef\xbb\xbf)?\s*(<\?xml.*|<!--.*|<!DOCTYPE svg.*)?<svg[\s>]"),),
        reader=LibvipsReader(
            loader="svgload_source",
            family="VipsForeignLoadSvg",
            sample=samples.SVG,
            check_metadata=_check_elements,
            decode_cost=_decode_cost,
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
            decode_cost=_decode_cost,
        ),
    ),
)
