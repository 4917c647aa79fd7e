"""Which picture of a file: the first, unless another page is asked for."""

from dataclasses import replace

import pyvips

from vipsrv.errors import BadRequest, CorruptImage
from vipsrv.pipeline import libvips, tiff
from vipsrv.pipeline.header import Header, header_of, orientation_of
from vipsrv.pipeline.upload import Upload


def open_page(upload: Upload, header: Header, page: int) -> Header:
    """The header of a page, counted from 0: of an animation a frame as it is seen, its own size in a TIFF.

    Raises ``BadRequest`` beyond the last, and ``CorruptImage``.
    """
    if page == 0:
        return header
    info = header.info
    if page >= info.pages:
        count = f"{info.pages} page{'s' if info.pages > 1 else ''}"
        raise BadRequest(f"page: {page} is beyond the last; this {info.format} has {count}, counted from 0")
    if info.format == "tiff":
        tiff.check(upload, page)
    reader = next(reader for reader in libvips.readers() if reader.format == info.format)
    try:
        image = pyvips.Operation.call(
            reader.loader, upload.source, access="sequential", fail_on=header.fail_on, page=page
        )
    except pyvips.Error as error:
        raise CorruptImage(
            f"page {page} of this {info.format} cannot be read: {libvips.reason(error)}"
        ) from error
    own = replace(
        info,
        width=image.width,
        height=image.height,
        has_alpha=bool(image.hasalpha()),
        orientation=orientation_of(image),
    )
    return header_of(own, image, header.fail_on, metadata=header.metadata)
