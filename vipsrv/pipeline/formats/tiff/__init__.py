"""TIFF: pages, strips, tiles and pyramids.

==============  =======================================================================
``directory``   the fields of each page, read from the file's bytes
``layout``      strips, tiles and the cost of decoding, from these fields
``page``        what the fields say about the pixels, and whether libvips decodes them rightly
``rearrange``   shows libvips a page that it does not as a plainer one, which it does
``samples``     the numbers of such a page
``ranges``      which numbers are black and white
``old_jpeg``    old-style JPEG, as JPEG files
``colours``     grey, sRGB or CMYK of these numbers, and alpha
==============  =======================================================================

Measured with libvips 8.18.7: it follows every page when it opens a TIFF (65,000 in 7 MB take 0.7 s, 1,000,000
take 12 s), and keeps all metadata, in copies.
"""

import struct
from dataclasses import replace
from itertools import islice

import pyvips

from vipsrv.errors import CorruptImage, TooLarge
from vipsrv.options import Format, Keep
from vipsrv.pipeline.formats.base import ImageFormat, LibvipsReader, OpenedPage, Trial, signature
from vipsrv.pipeline.formats.tiff.colours import open_as_libvips, open_unusual
from vipsrv.pipeline.formats.tiff.directory import directories, metadata_sizes
from vipsrv.pipeline.formats.tiff.layout import block_of, decode_cost
from vipsrv.pipeline.formats.tiff.page import check_readable, check_tiles, is_usual, read_page
from vipsrv.pipeline.formats.writer import ANY_METADATA, EncodeCost, Writer
from vipsrv.pipeline.header import ImageHeader
from vipsrv.pipeline.limits import MAX_PAGES, too_many_pages
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.errors import forget_errors

_MAX_DESCRIPTION = 8 << 20
"""Bytes of the descriptions of all pages. One of 30 MB crashes the process (SIGSEGV), one of 25 MB does
not."""

_MAX_FIELDS = 64 << 20
"""Bytes of all other fields, such as Photoshop's layers: 0.1 s. libtiff reads them again for every page:
the same 40 MB 200 times take 51 s."""

_DESCRIPTION_COPIES = 6
"""Bytes of memory that libvips takes per byte of a description. Other fields are kept once."""


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


def _open_page(upload: Upload, number: int, fail_on: str) -> OpenedPage | None:
    page = read_page(upload, number)
    if page is None:
        return None
    check_tiles(page)
    if is_usual(page):
        return None
    check_readable(page)
    # libvips looked at the directory to recognise the file, and logged what it found wrong.
    forget_errors()
    try:
        opened = open_unusual(page, fail_on)
    except struct.error as error:  # a number that no field of the new directory can hold
        raise CorruptImage("this tiff has positions or sizes that are beyond its end") from error
    return replace(opened, pages=_count(upload))


def _count(upload: Upload) -> int:
    return sum(1 for _ in islice(directories(upload), MAX_PAGES + 1))


def _open_alone(upload: Upload, number: int, fail_on: str) -> OpenedPage | None:
    """Open a usual page of several with no other one in sight."""
    page, count = read_page(upload, number), _count(upload)
    if page is None or count == 1:
        return None
    forget_errors()
    return replace(open_as_libvips(page, fail_on), pages=count)


def _open_for_part(upload: Upload, header: ImageHeader, page: int) -> pyvips.Image | None:
    """Open a page in tiles, so that only those are decoded that are asked for."""
    block = block_of(upload, page)
    if block is None or not block.is_tile:
        return None
    return pyvips.Operation.call(
        "tiffload_source", upload.source, access="random", fail_on=header.fail_on, page=page
    )


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
        by_signature=True,
        error_beginnings=("tiff2vips:",),
        check_metadata=_check_metadata,
        open_page=_open_page,
        open_alone=_open_alone,
        not_read=(
            "support is not configured",
            "is not implemented",
            "Unsupported JPEG",
            "can not handle image",
        ),
        open_for_part=_open_for_part,
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
