"""The first look at a picture: its format and what its header says. Nothing is decoded."""

from dataclasses import dataclass
from typing import Any

import pyvips

from vipsrv.errors import CorruptImage, RequestError, UnsupportedFormat
from vipsrv.options import ImageInfo
from vipsrv.pipeline import libvips
from vipsrv.pipeline.opening import check_opening
from vipsrv.pipeline.signatures import HEAD, recognise
from vipsrv.pipeline.upload import Upload

_MOST_ORIENTATION = 8  # EXIF 2.3, tag 0x0112


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What was read, and ``image``: the picture that is decoded when it is read."""

    info: ImageInfo
    image: pyvips.Image


def read_info(upload: Upload) -> ImageInfo:
    """What the header says. Raises ``UnsupportedFormat`` and ``CorruptImage``."""
    libvips.forget_errors()
    return read_header(upload).info


def read_header(upload: Upload) -> Header:
    """Recognise the format and open the header.

    Raises ``UnsupportedFormat``, ``CorruptImage``, and ``TooLarge`` where opening it would take too long.
    """
    check_opening(upload)
    reader = libvips.find_reader(upload.source)
    if reader is None or (reader.format == "avif" and recognise(upload.head(HEAD)) != "AVIF"):
        # The second: one loader reads AVIF and HEIC, but this libvips may have no decoder for the latter.
        raise _refusal(upload)
    try:
        image = pyvips.Operation.call(reader.loader, upload.source, access="sequential", fail_on="error")
    except pyvips.Error as error:
        raise CorruptImage(
            f"the header of this {reader.format} cannot be read: {libvips.reason(error)}"
        ) from error
    info = ImageInfo(
        format=reader.format,
        width=image.width,
        height=image.height,
        pages=_field(image, "n-pages", 1),
        has_alpha=bool(image.hasalpha()),
        orientation=_orientation(image),
        size=upload.size,
    )
    return Header(info=info, image=image)


def _refusal(upload: Upload) -> RequestError:
    name = recognise(upload.head(HEAD))
    formats = libvips.formats()
    if name is not None and name.lower() in formats:
        return CorruptImage(f"this begins like {name}, but its header cannot be read")
    what = f"this looks like {name}, which is not read here" if name else "this is no image of a known format"
    return UnsupportedFormat(f"{what}; send one of: {', '.join(formats)}")


def _orientation(image: pyvips.Image) -> int:
    orientation: int = _field(image, "orientation", 1)
    return orientation if 1 <= orientation <= _MOST_ORIENTATION else 1


def _field(image: pyvips.Image, name: str, default: Any) -> Any:
    return image.get(name) if image.get_typeof(name) else default
