"""What may be asked of a picture, and what is told of one.

These are the values of version 2's JSON (see ``vipsrv/protocol/README.md``): the constructors check them,
``from_meta`` reads them, ``to_meta`` writes them, leaving out what is default. A value that makes no sense
raises ``ValueError`` with a message that starts with the option's name.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Self, TypeVar

DEFAULT_QUALITY = 85
"""The JPEG quality of the original, and so of every reply to version 1."""

MAX_DIMENSION = 2**32 - 1
"""Pixels: what a version 1 header can carry; what is allowed is the server's ``--max-output-pixels``."""

_INT64_MAX = 2**63 - 1
_FIRST_ROTATED = 5  # the EXIF orientations 5 to 8 swap width and height
_Record = TypeVar("_Record")


class Fit(StrEnum):
    """How a picture of one aspect ratio is brought into a target of another."""

    FILL = "fill"
    CONTAIN = "contain"
    COVER = "cover"
    INSIDE = "inside"
    OUTSIDE = "outside"


class Position(StrEnum):
    """Which part ``cover`` keeps and where ``contain`` places the picture."""

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
    """The formats of a result; ``auto`` keeps the source's where it can be written."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    AVIF = "avif"
    TIFF = "tiff"
    GIF = "gif"
    AUTO = "auto"


class Keep(StrEnum):
    """Which metadata of the source a result carries."""

    NONE = "none"
    ICC = "icc"
    EXIF = "exif"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeOptions:
    """One result that is asked for.

    ``width`` and ``height`` are pixels of the result as a viewer sees it; one may be ``None`` where the fit
    keeps the aspect ratio. ``quality`` is 1–100, ``None`` for the server's own; ``max_bytes`` lowers it until
    the result fits; ``background`` is ``#rrggbb``; ``page`` counts from 0.
    """

    width: int | None = None
    height: int | None = None
    fit: Fit = Fit.FILL
    position: Position = Position.CENTRE
    format: Format = Format.JPEG
    quality: int | None = None
    lossless: bool = False
    max_bytes: int | None = None
    background: str = "#ffffff"
    keep: Keep = Keep.NONE
    page: int = 0
    enlarge: bool = True

    def __post_init__(self) -> None:
        _check_int("width", self.width, 1, MAX_DIMENSION)
        _check_int("height", self.height, 1, MAX_DIMENSION)
        _check_int("quality", self.quality, 1, 100)
        _check_int("max_bytes", self.max_bytes, 1, _INT64_MAX)
        _check_int("page", self.page, 0, 2**31 - 1, optional=False)
        _check_bool("lossless", self.lossless)
        _check_bool("enlarge", self.enlarge)
        for name, kind in (("fit", Fit), ("position", Position), ("format", Format), ("keep", Keep)):
            # Frozen, so not by assignment; a plain text becomes a member here.
            object.__setattr__(self, name, _choice(name, kind, getattr(self, name)))
        _check_colour("background", self.background)
        if self.width is None and self.height is None:
            raise ValueError("width: is missing, and so is height")
        if self.fit is Fit.FILL and (self.width is None or self.height is None):
            missing = "width" if self.width is None else "height"
            raise ValueError(f"{missing}: is missing; the fit 'fill' needs both width and height")

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> Self:
        """Options from a JSON object; raises ``ValueError`` for unknown names and senseless values."""
        known = {option.name for option in fields(cls)}
        for name in meta:
            if name not in known:
                raise ValueError(f"{_printable(name)}: is no option of RESIZE")
        return cls(**meta)

    def to_meta(self) -> dict[str, Any]:
        """The JSON object that ``from_meta`` reads back, without the defaults."""
        return {
            option.name: getattr(self, option.name)
            for option in fields(self)
            if getattr(self, option.name) != option.default
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadSlot:
    """A resumable upload: its random 128-bit ``id`` in hex, whole ``size`` and ``offset`` in bytes."""

    id: str
    size: int
    offset: int

    @classmethod
    def from_meta(cls, meta: Any) -> Self:
        """A slot from a JSON object; raises ``ValueError``."""
        if not isinstance(meta, dict) or set(meta) != {"id", "size", "offset"}:
            raise ValueError("upload: must be an object of id, size and offset")
        if not isinstance(meta["id"], str) or not re.fullmatch(r"[0-9a-f]{32}", meta["id"]):
            raise ValueError("upload: id must be 32 lower-case hex digits")
        _check_int("upload: size", meta["size"], 1, _INT64_MAX, optional=False)
        _check_int("upload: offset", meta["offset"], 0, meta["size"], optional=False)
        return cls(**meta)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeRequest:
    """The whole meta of a RESIZE: the results asked for, and what concerns them all.

    ``deadline_ms`` is how long it may wait for a worker and be processed, once it has arrived.
    """

    outputs: tuple[ResizeOptions, ...]
    deadline_ms: int | None = None
    upload: UploadSlot | None = None

    def __post_init__(self) -> None:
        _check_int("deadline_ms", self.deadline_ms, 1, 2**31 - 1)
        if not self.outputs:
            raise ValueError("outputs: must be one or more")

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> Self:
        """A request from a JSON object; raises ``ValueError``."""
        options = dict(meta)
        deadline_ms = options.pop("deadline_ms", None)
        upload = UploadSlot.from_meta(options.pop("upload")) if "upload" in options else None
        if "outputs" not in options:
            return cls(outputs=(ResizeOptions.from_meta(options),), deadline_ms=deadline_ms, upload=upload)
        listed = options.pop("outputs")
        if options:
            raise ValueError(
                f"{_printable(next(iter(options)))}: belongs inside each of outputs, not beside it"
            )
        if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) for one in listed):
            raise ValueError("outputs: must be a list of one or more objects")
        outputs = tuple(ResizeOptions.from_meta(one) for one in listed)
        return cls(outputs=outputs, deadline_ms=deadline_ms, upload=upload)

    def to_meta(self) -> dict[str, Any]:
        """The JSON object that ``from_meta`` reads back."""
        meta: dict[str, Any] = {}
        if len(self.outputs) == 1:
            meta.update(self.outputs[0].to_meta())
        else:
            meta["outputs"] = [output.to_meta() for output in self.outputs]
        if self.deadline_ms is not None:
            meta["deadline_ms"] = self.deadline_ms
        if self.upload is not None:
            meta["upload"] = asdict(self.upload)
        return meta


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """What the header of an image says: ``width`` and ``height`` in pixels as stored (before the EXIF
    ``orientation`` of 1–8 is applied), ``size`` in bytes.
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
        """The ``source`` of a reply's meta; raises ``ValueError``."""
        return _record(cls, "source", meta)

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height in pixels as a viewer sees them: after the orientation was applied."""
        return self.swap_if_rotated(self.width, self.height)

    def swap_if_rotated(self, width: int, height: int) -> tuple[int, int]:
        """A size as stored becomes the size as seen, and the other way round."""
        return (height, width) if self.orientation >= _FIRST_ROTATED else (width, height)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputInfo:
    """One result: ``width`` and ``height`` in pixels, ``size`` in bytes, and the ``quality`` used (1–100)."""

    width: int
    height: int
    format: str
    quality: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Milliseconds at the server: receiving the upload, waiting for a worker, the worker's work, and from
    the first byte of the request to the reply.
    """

    receive: float
    queue: float
    process: float
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeReport:
    """The meta of a RESIZE reply: ``ratio`` is source bytes over result bytes."""

    source: ImageInfo
    outputs: tuple[OutputInfo, ...]
    ms: Timings
    ratio: float

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> Self:
        """A report from a JSON object; raises ``ValueError``. Names unknown here are passed over."""
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
        """The JSON object that ``from_meta`` reads back."""
        return asdict(self)


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
    if not isinstance(value, str) or value not in list(kind):
        raise ValueError(f"{name}: must be one of {', '.join(kind)}, not {_shown(value)}")
    return kind(value)


def _float(name: str, value: Any) -> float:
    # The range first: a whole number may be too large for a float.
    if type(value) not in (int, float) or not 0 <= value <= _INT64_MAX:
        raise ValueError(f"{name}: must be a number from 0, not {_shown(value)}")
    return float(value)


def _record(kind: type[_Record], name: str, meta: Any) -> _Record:
    """A dataclass of plain values from the JSON object ``meta``, which messages call ``name``."""
    if not isinstance(meta, dict):
        raise ValueError(f"{name}: must be an object, not {_shown(meta)}")  # noqa: TRY004 - one error type
    values = {
        one.name: _plain(f"{name}: {one.name}", one.type, meta.get(one.name))
        for one in fields(kind)  # type: ignore[arg-type]  # there is no public type for "a dataclass"
    }
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
    """A value for a message: short, printable and without recursion, whatever a peer may have sent."""
    if isinstance(value, str):
        return json.dumps(value[:40])
    if isinstance(value, int) and value.bit_length() > 64:  # noqa: PLR2004 - more than any option takes
        return f"a number of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return type(value).__name__


def _printable(name: str) -> str:
    return json.dumps(name[:40])[1:-1]
