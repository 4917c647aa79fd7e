"""TIFF: pages, strips, tiles and pyramids.

==============  =======================================================================
``directory``   the fields of each page, read from the file's bytes
``layout``      strips, tiles and the cost of decoding, from these fields
==============  =======================================================================

Measured with libvips 8.18.7: it follows every page when it opens a TIFF (65,000 in 7 MB take 0.7 s, 1,000,000
take 12 s), and keeps all metadata, in copies.
"""

import pyvips

from vipsrv.errors import CorruptImage, TooLarge
from vipsrv.options import Format, Keep
from vipsrv.pipeline.formats.base import (
    ANY_METADATA,
    EncodeCost,
    ImageFormat,
    LibvipsReader,
    Trial,
    Writer,
    signature,
)
from vipsrv.pipeline.formats.tiff.directory import Tag, metadata_sizes, page_fields
from vipsrv.pipeline.formats.tiff.layout import decode_cost
from vipsrv.pipeline.limits import MAX_PAGES, too_many_pages
from vipsrv.pipeline.upload import Upload

_MAX_DESCRIPTION = 8 << 20
"""Bytes of the descriptions of all pages. One of 30 MB crashes the process (SIGSEGV), one of 25 MB does
not."""

_MAX_FIELDS = 64 << 20
"""Bytes of all other fields, such as Photoshop's layers: 0.1 s. libtiff reads them again for every page:
the same 40 MB 200 times take 51 s."""

_DESCRIPTION_COPIES = 6
"""Bytes of memory that libvips takes per byte of a description. Other fields are kept once."""

_YCBCR = 6
_JPEG_COMPRESSIONS = {6, 7, 34_712}  # the old kind and the new one; JPEG 2000


def _check_metadata(upload: Upload) -> int:
    memory = description = others = 0
    for number, sizes in enumerate(metadata_sizes(upload)):
        if number == MAX_PAGES:
            raise too_many_pages(None)
        description, others = description + sizes.description, others + sizes.others
        if description > _MAX_DESCRIPTION or others > _MAX_FIELDS:
            raise TooLarge(
                f"this tiff has more metadata than allowed: {_MAX_DESCRIPTION} bytes of descriptions, "
                f"{_MAX_FIELDS} of other fields"
            )
        memory = max(memory, sizes.description * _DESCRIPTION_COPIES + sizes.others)
    return memory


def _check_page(upload: Upload, page: int) -> None:
    """Refuse YCbCr that is not compressed as JPEG: libvips decodes it as if it were RGB. A file that
    cannot be read is left to libvips. Raises ``CorruptImage``.
    """
    fields = page_fields(upload, page)
    if fields.get(Tag.PHOTOMETRIC) == _YCBCR and fields.get(Tag.COMPRESSION, 1) not in _JPEG_COMPRESSIONS:
        raise CorruptImage(
            "this tiff holds YCbCr that is not compressed as JPEG, which vipsrv does not decode"
        )


def _corrected(image: pyvips.Image) -> pyvips.Image | None:
    """Treat 8-bit samples that claim to be signed as unsigned, as they are in all known files."""
    return image.copy(format="uchar") if image.format == "char" else None


TIFF = ImageFormat(
    name="tiff",
    order=40,
    signatures=(signature("TIFF", rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]"),),
    reader=LibvipsReader(
        loader="tiffload_source",
        family="VipsForeignLoadTiff",
        trial=Trial(saver="tiffsave_buffer"),
        # libvips 8.18 continues after a missing or damaged tile, for any ``fail_on``.
        continues_after_errors=True,
        error_beginnings=("tiff2vips:",),
        check_metadata=_check_metadata,
        check_page=_check_page,
        corrected=_corrected,
        decode_cost=decode_cost,
    ),
    writer=Writer(
        format=Format.TIFF,
        saver="tiffsave_buffer",
        # 800 × 600 in CPU ms and KB: LZW 22, 480; deflate 65, 427.
        options={"compression": "lzw", "predictor": "horizontal"},
        lossy=False,
        lossless=True,
        alpha=True,
        keeps=ANY_METADATA - {Keep.EXIF},  # libvips writes no EXIF into a TIFF
        cost=EncodeCost(pixel=4, alpha=2, seconds=0.005),
    ),
)

FORMATS = (TIFF,)
