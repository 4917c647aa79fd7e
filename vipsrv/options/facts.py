"""The facts that a reply states about an image and its results."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Self, TypeVar, get_args

from vipsrv.options.bounds import INT64_MAX
from vipsrv.options.checks import check_int, shown
from vipsrv.options.placeholder import Placeholders

_NUMBERS = frozenset({int, float})
_FIRST_ROTATED = 5  # the EXIF orientations 5 to 8 swap width and height
_Record = TypeVar("_Record")


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
    """Facts about one result: ``width`` and ``height`` in pixels, ``size`` in bytes, ``quality`` 1–100.

    ``frames`` is how many images the result has; ``None`` if it is one and the source has no more. ``ssim``
    is how much the result looks like the image before it was encoded, where ``min_ssim`` was asked: 1 means
    equal.
    """

    width: int
    height: int
    format: str
    quality: int
    size: int
    frames: int | None = None
    ssim: float | None = None


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
    placeholder: Placeholders | None = None

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> Self:
        """Read a report from a JSON object; unknown names are ignored. Raises ``ValueError``."""
        outputs = meta.get("outputs")
        if not isinstance(outputs, list | tuple) or not outputs:
            raise ValueError(f"outputs: must be a list of one or more objects, not {shown(outputs)}")
        return cls(
            source=ImageInfo.from_meta(meta.get("source")),
            outputs=tuple(_record(OutputInfo, "outputs", output) for output in outputs),
            ms=_record(Timings, "ms", meta.get("ms")),
            ratio=_float("ratio", meta.get("ratio")),
            placeholder=placeholders_of(meta),
        )

    def to_meta(self) -> dict[str, Any]:
        """Return the JSON object that ``from_meta`` reads."""
        meta = asdict(self)
        del meta["placeholder"]
        if self.placeholder is not None:
            meta["placeholder"] = self.placeholder.to_meta()
        meta["outputs"] = tuple(
            {name: value for name, value in output.items() if value is not None} for output in meta["outputs"]
        )
        return meta


def placeholders_of(meta: Mapping[str, Any]) -> Placeholders | None:
    """Return what the meta of a reply has that stands for the image, if anything. Raises ``ValueError``."""
    found = meta.get("placeholder")
    return None if found is None else _record(Placeholders, "placeholder", found)


def _fields(kind: type[Any]) -> tuple[tuple[str, Any, bool], ...]:
    """Return the name of each field, its type without ``None``, and whether it may be absent."""
    return tuple(
        (one.name, next(iter(get_args(one.type)), one.type), one.default is not MISSING)
        for one in fields(kind)
    )


_FIELDS: dict[type[Any], tuple[tuple[str, Any, bool], ...]] = {
    kind: _fields(kind) for kind in (ImageInfo, OutputInfo, Timings, Placeholders)
}
"""The fields of the records of a reply. A field that newer servers send has the default ``None``."""


def _float(name: str, value: Any) -> float:
    # Check the range before converting: an integer may be too large for a float.
    if type(value) not in (int, float) or not 0 <= value <= INT64_MAX:
        raise ValueError(f"{name}: must be a number from 0, not {shown(value)}")
    return float(value)


def _record(kind: type[_Record], name: str, meta: Any) -> _Record:
    """Make a dataclass of plain values from the JSON object ``meta``; error messages call it ``name``."""
    if not isinstance(meta, dict):
        raise ValueError(f"{name}: must be an object, not {shown(meta)}")  # noqa: TRY004 - one error type
    values: dict[str, Any] = {}
    for field, expected, is_optional in _FIELDS[kind]:
        value: Any = meta.get(field)
        if value is None and is_optional:
            continue
        # Nearly all values are valid numbers or texts: the checks that name the field take twice as long.
        if type(value) is not expected or (expected in _NUMBERS and not 0 <= value <= INT64_MAX):
            value = _plain(f"{name}: {field}", expected, value)
        values[field] = value
    return kind(**values)


def _plain(name: str, kind: Any, value: Any) -> Any:
    if kind is float:
        return _float(name, value)
    if kind is int:
        check_int(name, value, 0, INT64_MAX, optional=False)
    elif not isinstance(value, kind):
        raise ValueError(f"{name}: must be a {kind.__name__}, not {shown(value)}")
    return value
