"""The options of one result: their defaults, their checks and their JSON."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Self, SupportsIndex, TypedDict

from vipsrv.options.checks import (
    printable,
    read_bool,
    read_choice,
    read_colour,
    read_integer,
    read_number,
    read_numbers,
)
from vipsrv.options.effects import read_sharpen, read_watermark, read_watermark_position
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
from vipsrv.options.pages import read_pages
from vipsrv.options.placeholder import Placeholder, PlaceholderName
from vipsrv.options.regions import read_crop, read_pad


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
    ``page`` counts from 0. ``pages`` are frames of an animation, ``all`` or ``first-last``.

    The operations are done in this order, whatever the order of the options: the ``page`` is made upright by
    its EXIF orientation, then ``crop``, ``trim``, ``flip`` and ``rotate``, then the resize by ``fit`` with
    ``position`` or ``focus``, then ``modulate``, ``grey``, ``blur``, ``sharpen``, ``watermark``, ``rounded``
    and ``pad``.

    ``crop`` is left, top, width and height of the part to take: pixels of the upright page if all four are
    ``int``, else fractions of its width and height from 0 to 1. ``trim`` removes borders whose colour differs
    from that of the top left corner by no more than this, 0–255. ``flip`` mirrors. ``rotate`` is degrees
    clockwise, 0–359; what a rotation by other than multiples of 90 uncovers has the ``background``. ``focus``
    is x and y of a point, as fractions, that ``cover`` keeps as close to the centre as it can. ``pad`` is the
    border around the result in pixels: top, right, bottom and left, or one number for all.

    ``modulate`` is two factors, of brightness and of saturation. ``grey`` removes the colours. ``blur`` is
    the sigma of a Gaussian in pixels of the result. ``sharpen`` is ``True`` for what suits a thumbnail, or
    the sigma of an unsharp mask. ``watermark`` is the name of an image that the server was started with; it
    is placed at ``watermark_position``, ``watermark_scale`` times as wide as the result, and as opaque as
    ``watermark_opacity``, 0 to 1. ``rounded`` is the radius of the corners in pixels of the result.

    How the result is encoded: ``progressive`` makes a JPEG, PNG or GIF that shows the whole image, coarsely,
    when its first part has arrived. ``chroma`` is how a lossy result stores colours. ``palette`` reduces a
    PNG to at most 256 colours, by ``quality``. ``optimize`` is whether a JPEG gets Huffman tables of its own,
    which its ``effort`` decides otherwise. ``min_ssim`` (0–1) lowers the quality as long as the SSIM of
    the result to the image before encoding is at least this; the reply has the ``ssim``.
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
    pages: str | None = None
    enlarge: bool = True
    crop: tuple[float, float, float, float] | None = None
    trim: int | None = None
    flip: Flip | None = None
    rotate: int = 0
    focus: tuple[float, float] | None = None
    modulate: tuple[float, float] | None = None
    grey: bool = False
    blur: float | None = None
    sharpen: bool | float = False
    watermark: str | None = None
    watermark_position: Position = Position.RIGHT_BOTTOM
    watermark_scale: float = 0.25
    watermark_opacity: float = 1.0
    rounded: int | None = None
    pad: tuple[int, int, int, int] | None = None
    progressive: bool | None = None
    chroma: Chroma = Chroma.AUTO
    palette: bool = False
    optimize: bool | None = None
    min_ssim: float | None = None

    def __post_init__(self) -> None:
        # What has its default needs no check: most options are left out of most requests.
        for name, value, default, read in zip(_NAMES, _values(self), _DEFAULTS, _READS, strict=True):
            if value is not default:
                # The class is frozen, so not by assignment.
                object.__setattr__(self, name, read(name, value))
        if self.width is None and self.height is None:
            raise ValueError("width: is missing, and height as well")
        if self.fit is Fit.FILL and (self.width is None or self.height is None):
            missing = "width" if self.width is None else "height"
            raise ValueError(f"{missing}: is missing; the fit 'fill' needs both width and height")
        if self.pages is not None and self.page:
            raise ValueError("pages: chooses frames, and page one of them; leave one of the two out")

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> Self:
        """Read options from a JSON object. Raises ``ValueError`` for unknown names and invalid values."""
        if not meta.keys() <= _READ.keys():
            unknown = next(name for name in meta if name not in _READ)
            raise ValueError(f"{printable(unknown)}: is not an option of RESIZE")
        return cls(**meta)

    @property
    def has_effects(self) -> bool:
        """Whether the result is changed in more than its size."""
        return _effects(self) != _NO_EFFECTS

    def to_meta(self) -> dict[str, Any]:
        """Return the JSON object that ``from_meta`` reads, without the defaults."""
        return {
            name: list(value) if type(value) is tuple else value
            for name, value, default in zip(_NAMES, _values(self), _DEFAULTS, strict=True)
            if value is not default and value != default
        }


def _choice(kind: type[Any]) -> Callable[[str, Any], Any]:
    return lambda name, value: read_choice(name, kind, value)


_READ: dict[str, Callable[[str, Any], Any]] = {
    "width": read_integer,
    "height": read_integer,
    "fit": _choice(Fit),
    "position": _choice(Position),
    "format": _choice(Format),
    "quality": read_integer,
    "effort": read_integer,
    "lossless": read_bool,
    "max_bytes": read_integer,
    "background": read_colour,
    "keep": _choice(Keep),
    "page": read_integer,
    "pages": read_pages,
    "enlarge": read_bool,
    "crop": read_crop,
    "trim": read_integer,
    "flip": _choice(Flip),
    "rotate": read_integer,
    "focus": read_numbers,
    "modulate": read_numbers,
    "grey": read_bool,
    "blur": read_number,
    "sharpen": read_sharpen,
    "watermark": read_watermark,
    "watermark_position": read_watermark_position,
    "watermark_scale": read_number,
    "watermark_opacity": read_number,
    "rounded": read_integer,
    "pad": read_pad,
    "progressive": read_bool,
    "chroma": _choice(Chroma),
    "palette": read_bool,
    "optimize": read_bool,
    "min_ssim": read_number,
}
"""How each option is read: a function of the name and the value, which returns the checked value."""

_NAMES = tuple(option.name for option in fields(ResizeOptions))
_DEFAULTS = tuple(option.default for option in fields(ResizeOptions))
_EFFECTS = ("modulate", "grey", "blur", "sharpen", "watermark", "rounded")
_NO_EFFECTS = (None, False, None, False, None, None)
_effects: Callable[[ResizeOptions], tuple[Any, ...]] = attrgetter(*_EFFECTS)
_READS = tuple(_READ[name] for name in _NAMES)
_values: Callable[[ResizeOptions], tuple[Any, ...]] = attrgetter(*_NAMES)


class ResizeArguments(TypedDict, total=False):
    """The options of ``resize`` by name; ``ResizeOptions`` documents each of them and its default.

    If ``fit`` is left out and only one of ``width`` and ``height`` is given, the image keeps its proportions.

    ``deadline_ms``: milliseconds that the server may take from the arrival of the request to the result.
    After them it gives up with ``DeadlineExceeded``. By default the server's own ``--deadline`` applies.

    ``placeholder``: what the result shall have that stands for the image until it is loaded: ``thumbhash``,
    ``blurhash``, ``dominant`` and ``average``.

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
    pages: str | None
    enlarge: bool
    crop: Sequence[float] | None
    trim: SupportsIndex | None
    flip: Flip | FlipName | None
    rotate: SupportsIndex
    focus: Sequence[float] | None
    modulate: Sequence[float] | None
    grey: bool
    blur: float | None
    sharpen: bool | float
    watermark: str | None
    watermark_position: Position | PositionName
    watermark_scale: float
    watermark_opacity: float
    rounded: SupportsIndex | None
    pad: Sequence[SupportsIndex] | SupportsIndex | None
    progressive: bool | None
    chroma: Chroma | ChromaName
    palette: bool
    optimize: bool | None
    min_ssim: float | None
    placeholder: Iterable[Placeholder | PlaceholderName]
    deadline_ms: SupportsIndex | None
    request_id: str | None
    traceparent: str | None
