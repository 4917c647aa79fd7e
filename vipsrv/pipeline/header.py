"""The first look at a picture: its format and what its header says. Nothing is decoded."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import pyvips

from vipsrv.errors import CorruptImage, RequestError, UnsupportedFormat
from vipsrv.options import ImageInfo
from vipsrv.pipeline import libvips
from vipsrv.pipeline.calls import Call, shape
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
    head = upload.head(HEAD)
    reader = libvips.find_reader(upload.source, head)
    if reader is None or (reader.format == "avif" and recognise(head) != "AVIF"):
        # The second: one loader reads AVIF and HEIC, but this libvips may have no decoder for the latter.
        raise _refusal(head)
    try:
        image = _opener(reader.loader)(upload.source)
    except pyvips.Error as error:
        raise CorruptImage(
            f"the header of this {reader.format} cannot be read: {libvips.reason(error)}"
        ) from error
    width, height, *_ = shape(image)
    info = ImageInfo(
        format=reader.format,
        width=width,
        height=height,
        pages=_field(image, "n-pages", 1),
        has_alpha=bool(image.hasalpha()),
        orientation=orientation_of(image),
        size=upload.size,
    )
    return Header(info=info, image=image)


@cache
def _opener(loader: str) -> Call:
    return Call(loader, "source", access="sequential", fail_on="error")


def _refusal(head: bytes) -> RequestError:
    name = recognise(head)
    formats = libvips.formats()
    if name is not None and name.lower() in formats:
        return CorruptImage(f"this begins like {name}, but its header cannot be read")
    what = f"this looks like {name}, which is not read here" if name else "this is no image of a known format"
    return UnsupportedFormat(f"{what}; send one of: {', '.join(formats)}")


def orientation_of(image: pyvips.Image) -> int:
    """The EXIF orientation, 1 where it is missing or none."""
    orientation: int = _field(image, "orientation", 1)
    return orientation if 1 <= orientation <= _MOST_ORIENTATION else 1


def _field(image: pyvips.Image, name: str, default: Any) -> Any:
    return image.get(name) if image.get_typeof(name) else default
