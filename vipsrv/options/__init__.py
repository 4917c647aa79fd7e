"""The options of a resize request, and the facts that a reply states about images.

These are the values of the JSON in protocol version 2 (see ``vipsrv/protocol/README.md``). The constructors
check them, ``from_meta`` reads them from JSON, and ``to_meta`` writes them without the defaults. An invalid
value raises ``ValueError`` with a message that starts with the name of the option.

``resize`` has the options of one result, ``request`` the message around them, ``facts`` the reply, ``names``
the words, ``bounds`` the limits, ``checks`` the checks of single values, and ``regions`` those of regions.
"""

from vipsrv.options.bounds import (
    DEADLINE_MS_BOUNDS,
    DEFAULT_QUALITY,
    HIGHEST_QUALITY,
    INTEGER_BOUNDS,
    LIST_LENGTHS,
    MAX_DIMENSION,
    MAX_EFFORT,
    MAX_REQUEST_ID,
    MOST_BYTES_BESIDE_FRAME,
    MOST_BYTES_BESIDE_PIXELS,
    MOST_BYTES_PER_PIXEL,
    NUMBER_BOUNDS,
)
from vipsrv.options.effects import BY_CONTENT, WATERMARK_PATTERN, read_watermark
from vipsrv.options.facts import ImageInfo, OutputInfo, ResizeReport, Timings, placeholders_of
from vipsrv.options.names import (
    Chroma,
    ChromaName,
    Fit,
    FitName,
    Flip,
    FlipName,
    Format,
    FormatName,
    Keep,
    KeepName,
    Position,
    PositionName,
)
from vipsrv.options.pages import PAGES_PATTERN, page_range, read_pages
from vipsrv.options.placeholder import Placeholder, PlaceholderName, Placeholders, read_placeholders
from vipsrv.options.request import ResizeRequest, UploadSlot, check_request_id, is_traceparent
from vipsrv.options.resize import ResizeArguments, ResizeOptions, default_fit

__all__ = [
    "BY_CONTENT",
    "DEADLINE_MS_BOUNDS",
    "DEFAULT_QUALITY",
    "HIGHEST_QUALITY",
    "INTEGER_BOUNDS",
    "LIST_LENGTHS",
    "MAX_DIMENSION",
    "MAX_EFFORT",
    "MAX_REQUEST_ID",
    "MOST_BYTES_BESIDE_FRAME",
    "MOST_BYTES_BESIDE_PIXELS",
    "MOST_BYTES_PER_PIXEL",
    "NUMBER_BOUNDS",
    "PAGES_PATTERN",
    "WATERMARK_PATTERN",
    "Chroma",
    "ChromaName",
    "Fit",
    "FitName",
    "Flip",
    "FlipName",
    "Format",
    "FormatName",
    "ImageInfo",
    "Keep",
    "KeepName",
    "OutputInfo",
    "Placeholder",
    "PlaceholderName",
    "Placeholders",
    "Position",
    "PositionName",
    "ResizeArguments",
    "ResizeOptions",
    "ResizeReport",
    "ResizeRequest",
    "Timings",
    "UploadSlot",
    "check_request_id",
    "default_fit",
    "is_traceparent",
    "page_range",
    "placeholders_of",
    "read_pages",
    "read_placeholders",
    "read_watermark",
]
