"""What libvips decodes wrongly and without a word in TIFFs: told by some fields of its first directory.

Source: TIFF revision 6.0 (1992).
"""

import pyvips

from vipsrv.errors import CorruptImage
from vipsrv.pipeline import layout
from vipsrv.pipeline.upload import Upload

_COMPRESSION = 259
_PHOTOMETRIC = 262
_YCBCR = 6
_JPEGS = {6, 7, 34_712}  # the old way and the new one; JPEG 2000


def check(upload: Upload, page: int = 0) -> None:
    """Refuse YCbCr that is not compressed as JPEG: libvips takes its numbers for RGB.

    Each ``page``, counted from 0, has a directory. Raises ``CorruptImage``; what cannot be read is left to
    libvips.
    """
    fields = layout.tiff_numbers(upload, page)
    if fields.get(_PHOTOMETRIC) == _YCBCR and fields.get(_COMPRESSION, 1) not in _JPEGS:
        raise CorruptImage("this tiff holds YCbCr that is not compressed as JPEG, which is not decoded here")


def unsigned(image: pyvips.Image) -> pyvips.Image:
    """The picture with 8-bit numbers that say they are signed taken as they are: so are those that occur."""
    return image.copy(format="uchar")
