"""The metadata fields of a libvips image."""

from typing import Any

import pyvips

PROFILE = "icc-profile-data"
"""The field that holds an embedded ICC profile."""

EXIF_THUMBNAIL = "jpeg-thumbnail-data"
"""The field that holds the thumbnail that cameras embed in EXIF."""

XMP = "xmp-data"
"""The field that holds an XMP packet."""

_LAST_ORIENTATION = 8  # EXIF 2.3, tag 0x0112


def get_field(image: pyvips.Image, name: str, default: Any = None) -> Any:
    """Return the value of a field, or ``default`` if the image has no such field."""
    return image.get(name) if image.get_typeof(name) else default


def orientation_of(image: pyvips.Image) -> int:
    """Return the EXIF orientation (1–8), 1 if it is missing or invalid."""
    orientation: int = get_field(image, "orientation", 1)
    return orientation if 1 <= orientation <= _LAST_ORIENTATION else 1
