"""The words of the protocol: the choices of an option, as enumerations and as types of plain text."""

from enum import StrEnum
from typing import Literal


class Fit(StrEnum):
    """How an image is fitted into a target size of another aspect ratio."""

    FILL = "fill"
    CONTAIN = "contain"
    COVER = "cover"
    INSIDE = "inside"
    OUTSIDE = "outside"


class Position(StrEnum):
    """The part of the image that ``cover`` keeps, and where ``contain`` places the image."""

    CENTRE = "centre"
    TOP = "top"
    RIGHT_TOP = "right top"
    RIGHT = "right"
    RIGHT_BOTTOM = "right bottom"
    BOTTOM = "bottom"
    LEFT_BOTTOM = "left bottom"
    LEFT = "left"
    LEFT_TOP = "left top"
    ENTROPY = "entropy"
    ATTENTION = "attention"


class Format(StrEnum):
    """The format of a result; ``auto`` keeps the format of the source if the server can write it.

    ``jpg`` is accepted as another name of ``jpeg``.
    """

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    AVIF = "avif"
    TIFF = "tiff"
    GIF = "gif"
    JXL = "jxl"
    AUTO = "auto"

    @classmethod
    def _missing_(cls, value: object) -> "Format | None":
        return cls.JPEG if value == "jpg" else None


class Keep(StrEnum):
    """The metadata of the source that is copied to a result."""

    NONE = "none"
    ICC = "icc"
    EXIF = "exif"
    ALL = "all"


class Chroma(StrEnum):
    """How a lossy result stores colours: at half its width and height (``4:2:0``), or whole (``4:4:4``).

    ``auto`` leaves it to the format: JPEG and AVIF store them whole from quality 90 on.
    """

    AUTO = "auto"
    HALF = "4:2:0"
    FULL = "4:4:4"


class Flip(StrEnum):
    """How an image is mirrored: left and right change places, top and bottom do, or both."""

    HORIZONTAL = "horizontal"
    VERTICAL = "vertical"
    BOTH = "both"


FitName = Literal["fill", "contain", "cover", "inside", "outside"]
PositionName = Literal[
    "centre",
    "top",
    "right top",
    "right",
    "right bottom",
    "bottom",
    "left bottom",
    "left",
    "left top",
    "entropy",
    "attention",
]
FormatName = Literal["jpeg", "jpg", "png", "webp", "avif", "tiff", "gif", "jxl", "auto"]
KeepName = Literal["none", "icc", "exif", "all"]
ChromaName = Literal["auto", "4:2:0", "4:4:4"]
FlipName = Literal["horizontal", "vertical", "both"]
