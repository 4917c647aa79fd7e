"""The metadata fields of a libvips image."""

from typing import Any

import pyvips

PROFILE = "icc-profile-data"
"""The field that holds an embedded ICC profile."""

EXIF = "exif-data"
"""The field that holds EXIF data."""

ORIENTATION = "orientation"
"""The field that holds the EXIF orientation."""

EXIF_THUMBNAIL = "jpeg-thumbnail-data"
"""The field that holds the thumbnail that cameras embed in EXIF."""

XMP = "xmp-data"
"""The field that holds an XMP packet."""

SEQUENTIAL = "vips-sequential"
"""The field of an image whose rows a loader decodes one after the other, in this order only."""

_SHAPE = {"width", "height", "bands", "format", "coding", "interpretation"}
_PLACE = {"xoffset", "yoffset", "xres", "yres", "filename"}
_NO_METADATA = _SHAPE | _PLACE
"""The fields of an image that are not metadata."""

_ORIENTATIONS = ("orientation", "exif-ifd0-Orientation", "exif-ifd1-Orientation")
"""The fields that libvips removes from an image that it rotates upright."""

_LAST_ORIENTATION = 8  # EXIF 2.3, tag 0x0112


def get_field(image: pyvips.Image, name: str, default: Any = None) -> Any:
    """Return the value of a field, or ``default`` if the image has no such field."""
    return image.get(name) if image.get_typeof(name) else default


def orientation_of(image: pyvips.Image) -> int:
    """Return the EXIF orientation (1–8), 1 if it is missing or invalid."""
    orientation: int = get_field(image, "orientation", 1)
    return orientation if 1 <= orientation <= _LAST_ORIENTATION else 1


def set_orientation(image: pyvips.Image, orientation: int) -> pyvips.Image:
    """Return the image with this EXIF orientation (1–8) instead of its own."""
    image = image.copy()
    for name in _ORIENTATIONS:
        image.remove(name)
    if orientation > 1:
        image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    return image


def with_metadata(image: pyvips.Image, source: pyvips.Image, *, upright: bool = False) -> pyvips.Image:
    """Return ``image`` with the resolution and metadata of ``source``, without orientation if ``upright``."""
    image = image.copy(xres=source.xres, yres=source.yres)
    for name in source.get_fields():
        if name not in _NO_METADATA:
            image.set_type(source.get_typeof(name), name, source.get(name))
    if upright:
        for name in _ORIENTATIONS:
            image.remove(name)
    return image
