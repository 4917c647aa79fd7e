"""The options of a resize request, and the facts that a reply states about images.

These are the values of the JSON in protocol version 2 (see ``vipsrv/protocol/README.md``). The constructors
check them, ``from_meta`` reads them from JSON, and ``to_meta`` writes them without the defaults. An invalid
value raises ``ValueError`` with a message that starts with the name of the option.
"""

import json
import operator
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Literal, Self, SupportsIndex, TypedDict, TypeVar

DEFAULT_QUALITY = 85
"""JPEG quality of the original server, and therefore of every version 1 reply."""

MAX_DIMENSION = 2**32 - 1
"""Pixels: the most that a version 1 header can carry. The server's ``--max-output-pixels`` is lower."""

MOST_BYTES_PER_PIXEL = 16
"""More than the pixels of any result take. Uncompressed RGBA of 16 bits takes 8. The worst JPEG takes 10: for
each pixel in three colours a code of at most 16 bits and 10 more (ITU-T T.81, F.1.2.2)."""

MOST_BYTES_BESIDE_PIXELS = 2**20
"""More than the headers and the padding of a result take, without metadata that is kept."""

MAX_EFFORT = 9
"""The slowest of the efforts from 0 that an encoder may make to write a smaller file."""

MAX_REQUEST_ID = 128
"""Characters of a ``request_id``."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
"""W3C Trace Context, 3.2: version, trace id, parent id and flags. Later versions may add parts."""

_MAX_TRACEPARENT = 128
"""Characters; that of version 00 has 55."""

_INT64_MAX = 2**63 - 1
_NUMBERS = frozenset({int, float})

INTEGER_BOUNDS: dict[str, tuple[int, int]] = {
    "width": (1, MAX_DIMENSION),
    "height": (1, MAX_DIMENSION),
    "quality": (1, 100),
    "effort": (0, MAX_EFFORT),
    "max_bytes": (1, _INT64_MAX),
    "page": (0, 2**31 - 1),
}
"""The least and the largest value of each option that is a whole number."""

DEADLINE_MS_BOUNDS = (1, 2**31 - 1)
"""The same for ``deadline_ms`` of a request."""

_FIRST_ROTATED = 5  # the EXIF orientations 5 to 8 swap width and height
_Record = TypeVar("_Record")


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
FormatName = Literal["jpeg", "jpg", "png", "webp", "avif", "tiff", "gif", "auto"]
KeepName = Literal["none", "icc", "exif", "all"]


def default_fit(width: int | None, height: int | None) -> Fit:
    """Return the fit that the clients use by default: ``inside`` if one side is missing, else ``fill``.

    The protocol's own default is ``fill``, which needs both sides.
    """
    return Fit.INSIDE if width is None or height is None else Fit.FILL


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeOptions:
    """The options of one requested result.

    ``width`` and ``height`` are pixels of the result as a viewer shows it; one may be ``None`` if the fit
    keeps the aspect ratio. ``quality`` is 1–100, or ``None`` for the server's default. ``effort`` is CPU time
    of the encoder for a smaller file, 0 (fastest) to 9, or ``None`` for that of the format; TIFF
    ignores it. ``max_bytes`` lowers the quality until the result is no larger. ``background`` is ``#rrggbb``.
    ``page`` counts from 0.
    """

    width: int | None = None
    height: int | None = None
    fit: Fit = Fit.FILL
    position: Position = Position.CENTRE
    format: Format = Format.JPEG
    quality: int | None = None
    effort: int | None = None
    lossless: bool = False
    max_bytes: int | None = None
    background: str = "#ffffff"
    keep: Keep = Keep.NONE
    page: int = 0
    enlarge: bool = True

    def __post_init__(self) -> None:
        for name, (least, most) in INTEGER_BOUNDS.items():
            value = _as_int(getattr(self, name))
            # The class is frozen, so not by assignment.
            object.__setattr__(self, name, value)
            _check_int(name, value, least, most, optional=name != "page")
        _check_bool("lossless", self.lossless)
        _check_bool("enlarge", self.enlarge)
        for name, kind in (("fit", Fit), ("position", Position), ("format", Format), ("keep", Keep)):
            # A plain string becomes a member.
            object.__setattr__(self, name, _choice(name, kind, getattr(self, name)))
        _check_colour("background", self.background)
        if self.width is None and self.height is None:
            raise ValueError("width: is missing, and height as well")
        if self.fit is Fit.FILL and (self.width is None or self.height is None):
            missing = "width" if self.width is None else "height"
            raise ValueError(f"{missing}: is missing; the fit 'fill' needs both width and height")

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> Self:
        """Read options from a JSON object. Raises ``ValueError`` for unknown names and invalid values."""
        known = {option.name for option in fields(cls)}
        for name in meta:
            if name not in known:
                raise ValueError(f"{_printable(name)}: is not an option of RESIZE")
        return cls(**meta)

    def to_meta(self) -> dict[str, Any]:
        """Return the JSON object that ``from_meta`` reads, without the defaults."""
        return {
            option.name: getattr(self, option.name)
            for option in fields(self)
            if getattr(self, option.name) != option.default
        }


class ResizeArguments(TypedDict, total=False):
    """The options of ``resize`` by name; ``ResizeOptions`` documents each of them and its default.

    If ``fit`` is left out and only one of ``width`` and ``height`` is given, the image keeps its proportions.

    ``deadline_ms``: milliseconds that the server may take from the arrival of the request to the result.
    After them it gives up with ``DeadlineExceeded``. By default the server's own ``--deadline`` applies.

    ``request_id`` (1 to 128 characters) and ``traceparent`` (W3C Trace Context) are written into the line of
    the request in the server's log. What is no valid ``traceparent`` is left out.
    """

    width: SupportsIndex | None
    height: SupportsIndex | None
    fit: Fit | FitName
    position: Position | PositionName
    format: Format | FormatName
    quality: SupportsIndex | None
    effort: SupportsIndex | None
    lossless: bool
    max_bytes: SupportsIndex | None
    background: str
    keep: Keep | KeepName
    page: SupportsIndex
    enlarge: bool
    deadline_ms: SupportsIndex | None
    request_id: str | None
    traceparent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadSlot:
    """Part of a resumable upload: a random 128-bit ``id`` in hex, total ``size`` and ``offset`` in bytes."""

    id: str
    size: int
    offset: int

    @classmethod
    def from_meta(cls, meta: Any) -> Self:
        """Read a slot from a JSON object. Raises ``ValueError``."""
        if not isinstance(meta, dict) or set(meta) != {"id", "size", "offset"}:
            raise ValueError("upload: must be an object of id, size and offset")
        if not isinstance(meta["id"], str) or not re.fullmatch(r"[0-9a-f]{32}", meta["id"]):
            raise ValueError("upload: id must be 32 lower-case hex digits")
        _check_int("upload: size", meta["size"], 1, _INT64_MAX, optional=False)
        _check_int("upload: offset", meta["offset"], 0, meta["size"], optional=False)
        return cls(**meta)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeRequest:
    """The meta of a RESIZE message: the requested results, and the options that apply to all of them.

    ``deadline_ms`` limits the time from the arrival of the request to its result: waiting and processing.
    ``request_id`` and ``traceparent`` are for the server's log.
    """

    outputs: tuple[ResizeOptions, ...]
    deadline_ms: int | None = None
    upload: UploadSlot | None = None
    request_id: str | None = None
    traceparent: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "deadline_ms", _as_int(self.deadline_ms))
        _check_int("deadline_ms", self.deadline_ms, *DEADLINE_MS_BOUNDS)
        check_request_id(self.request_id)
        if self.traceparent is not None and not isinstance(self.traceparent, str):
            raise ValueError(f"traceparent: must be a text, not {_shown(self.traceparent)}")
        if not self.outputs:
            raise ValueError("outputs: must be one or more")

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> Self:
        """Read a request from a JSON object. Raises ``ValueError``."""
        options = dict(meta)
        common = {name: options.pop(name, None) for name in ("deadline_ms", "request_id", "traceparent")}
        if "upload" in options:
            common["upload"] = UploadSlot.from_meta(options.pop("upload"))
        if "outputs" not in options:
            return cls(outputs=(ResizeOptions.from_meta(options),), **common)
        listed = options.pop("outputs")
        if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) for one in listed):
            raise ValueError("outputs: must be a list of one or more objects")
        if options:
            raise ValueError(
                f"{_printable(next(iter(options)))}: belongs inside each object of outputs, not outside"
            )
        outputs = tuple(ResizeOptions.from_meta(one) for one in listed)
        return cls(outputs=outputs, **common)

    def to_meta(self) -> dict[str, Any]:
        """Return the JSON object that ``from_meta`` reads."""
        meta: dict[str, Any] = {}
        if len(self.outputs) == 1:
            meta.update(self.outputs[0].to_meta())
        else:
            meta["outputs"] = [output.to_meta() for output in self.outputs]
        if self.deadline_ms is not None:
            meta["deadline_ms"] = self.deadline_ms
        if self.upload is not None:
            meta["upload"] = asdict(self.upload)
        if self.request_id is not None:
            meta["request_id"] = self.request_id
        if self.traceparent is not None and is_traceparent(self.traceparent):
            meta["traceparent"] = self.traceparent
        return meta


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """Facts from the header of an image.

    ``width`` and ``height`` are pixels as stored, before the EXIF ``orientation`` (1–8) is applied; ``size``
    is bytes.
    """

    format: str
    width: int
    height: int
    pages: int
    has_alpha: bool
    orientation: int
    size: int

    @classmethod
    def from_meta(cls, meta: Any) -> Self:
        """Read the ``source`` object of a reply's meta. Raises ``ValueError``."""
        return _record(cls, "source", meta)

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height in pixels as a viewer sees them: after the orientation has been applied."""
        return self.swap_if_rotated(self.width, self.height)

    def swap_if_rotated(self, width: int, height: int) -> tuple[int, int]:
        """Swap width and height if the orientation rotates the image by 90 degrees."""
        return (height, width) if self.orientation >= _FIRST_ROTATED else (width, height)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputInfo:
    """Facts about one result: ``width`` and ``height`` in pixels, ``size`` in bytes, ``quality`` 1–100."""

    width: int
    height: int
    format: str
    quality: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Milliseconds that a request took at the server.

    ``receive``: receiving the upload. ``queue``: waiting for a worker. ``process``: the work of the worker.
    ``total``: from the first byte of the request to the reply.
    """

    receive: float
    queue: float
    process: float
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeReport:
    """The meta of a RESIZE reply. ``ratio`` is the source's bytes divided by the bytes of all results."""

    source: ImageInfo
    outputs: tuple[OutputInfo, ...]
    ms: Timings
    ratio: float

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> Self:
        """Read a report from a JSON object; unknown names are ignored. Raises ``ValueError``."""
        outputs = meta.get("outputs")
        if not isinstance(outputs, list | tuple) or not outputs:
            raise ValueError(f"outputs: must be a list of one or more objects, not {_shown(outputs)}")
        return cls(
            source=ImageInfo.from_meta(meta.get("source")),
            outputs=tuple(_record(OutputInfo, "outputs", output) for output in outputs),
            ms=_record(Timings, "ms", meta.get("ms")),
            ratio=_float("ratio", meta.get("ratio")),
        )

    def to_meta(self) -> dict[str, Any]:
        """Return the JSON object that ``from_meta`` reads."""
        return asdict(self)


_FIELDS: dict[type[Any], tuple[tuple[str, Any], ...]] = {
    kind: tuple((one.name, one.type) for one in fields(kind)) for kind in (ImageInfo, OutputInfo, Timings)
}
"""The names and types of the fields of the records of a reply."""


def check_request_id(value: Any) -> None:
    """Raise ``ValueError`` unless a ``request_id`` is missing or has 1 to 128 characters."""
    if value is None:
        return
    if not isinstance(value, str):
        raise ValueError(f"request_id: must be a text, not {_shown(value)}")  # noqa: TRY004 - one error type
    if not 0 < len(value) <= MAX_REQUEST_ID:
        raise ValueError(f"request_id: must have 1 to {MAX_REQUEST_ID} characters, not {len(value)}")


def is_traceparent(text: str) -> bool:
    """Whether a text is a valid ``traceparent``: ``00-<32 hex>-<16 hex>-<2 hex>``, neither id all zeros."""
    match = _TRACEPARENT.fullmatch(text) if len(text) <= _MAX_TRACEPARENT else None
    if match is None or text.startswith("ff") or (text.startswith("00") and match[3]):
        return False
    return text.isprintable() and any(one != "0" for one in match[1]) and any(one != "0" for one in match[2])


def _as_int(value: Any) -> Any:
    """Convert a whole number of another type, such as ``numpy.int64``; leave other values as they are."""
    if type(value) is int or isinstance(value, bool) or not hasattr(value, "__index__"):
        return value
    return operator.index(value)


def _check_int(name: str, value: Any, least: int, most: int, *, optional: bool = True) -> None:
    if value is None and optional:
        return
    if type(value) is not int:
        raise ValueError(f"{name}: must be a whole number, not {_shown(value)}")
    if not least <= value <= most:
        raise ValueError(f"{name}: must be from {least} to {most}, not {_shown(value)}")


def _check_bool(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name}: must be true or false, not {_shown(value)}")  # noqa: TRY004 - one error type


def _check_colour(name: str, value: Any) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        raise ValueError(f"{name}: must look like #ffffff, not {_shown(value)}")


def _choice(name: str, kind: type[StrEnum], value: Any) -> StrEnum:
    if isinstance(value, str):
        try:
            return kind(value)
        except ValueError:
            pass  # reported below, with the option's name
    raise ValueError(f"{name}: must be one of {', '.join(kind)}, not {_shown(value)}")


def _float(name: str, value: Any) -> float:
    # Check the range before converting: an integer may be too large for a float.
    if type(value) not in (int, float) or not 0 <= value <= _INT64_MAX:
        raise ValueError(f"{name}: must be a number from 0, not {_shown(value)}")
    return float(value)


def _record(kind: type[_Record], name: str, meta: Any) -> _Record:
    """Make a dataclass of plain values from the JSON object ``meta``; error messages call it ``name``."""
    if not isinstance(meta, dict):
        raise ValueError(f"{name}: must be an object, not {_shown(meta)}")  # noqa: TRY004 - one error type
    values: dict[str, Any] = {}
    for field, expected in _FIELDS[kind]:
        value: Any = meta.get(field)
        # Nearly all values are valid numbers or texts: the checks that name the field take twice as long.
        if type(value) is not expected or (expected in _NUMBERS and not 0 <= value <= _INT64_MAX):
            value = _plain(f"{name}: {field}", expected, value)
        values[field] = value
    return kind(**values)


def _plain(name: str, kind: Any, value: Any) -> Any:
    if kind is float:
        return _float(name, value)
    if kind is int:
        _check_int(name, value, 0, _INT64_MAX, optional=False)
    elif not isinstance(value, kind):
        raise ValueError(f"{name}: must be a {kind.__name__}, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """Return a value as text for an error message: short, printable, and safe for deeply nested input."""
    if isinstance(value, str):
        return json.dumps(value[:40])
    if isinstance(value, int) and value.bit_length() > 64:  # noqa: PLR2004 - larger than any valid value
        return f"a number of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return type(value).__name__


def _printable(name: str) -> str:
    return json.dumps(name[:40])[1:-1]
