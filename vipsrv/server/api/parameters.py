"""The parameters of ``/resize``, from a query or a form, and the meta of a RESIZE that they mean.

``PARAMETERS`` declares each of them once: how its text is read, what the documentation and the OpenAPI
document say about it, and its other names. Names and values of the library sharp are understood.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from vipsrv.errors import BadRequest
from vipsrv.options import (
    BY_CONTENT,
    DEADLINE_MS_BOUNDS,
    INTEGER_BOUNDS,
    LIST_LENGTHS,
    NUMBER_BOUNDS,
    PAGES_PATTERN,
    WATERMARK_PATTERN,
    Chroma,
    Fit,
    Flip,
    Format,
    Keep,
    Placeholder,
    Position,
    ResizeOptions,
    default_fit,
    read_pages,
    read_placeholders,
    read_watermark,
)
from vipsrv.printable import printable
from vipsrv.workers.channel import MAX_OUTPUTS

_DEFAULTS = {option.name: option.default for option in fields(ResizeOptions)}
_SHOWN = 40  # characters of a value in a message

_DIGITS = re.compile(r"[0-9]{1,20}", re.ASCII)
_DECIMAL = re.compile(r"[0-9]{1,20}|[0-9]{0,20}\.[0-9]{1,20}", re.ASCII)
_COLOUR = re.compile(r"#?([0-9a-fA-F]{6})")
_SIZE = re.compile(r"([0-9]{0,10})x([0-9]{0,10})", re.ASCII)

_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}

_SHARP_POSITIONS = {
    "center": Position.CENTRE,
    "north": Position.TOP,
    "northeast": Position.RIGHT_TOP,
    "east": Position.RIGHT,
    "southeast": Position.RIGHT_BOTTOM,
    "south": Position.BOTTOM,
    "southwest": Position.LEFT_BOTTOM,
    "west": Position.LEFT,
    "northwest": Position.LEFT_TOP,
    "top right": Position.RIGHT_TOP,
    "bottom right": Position.RIGHT_BOTTOM,
    "bottom left": Position.LEFT_BOTTOM,
    "top left": Position.LEFT_TOP,
}
_SHARP_FORMATS = {"jpg": Format.JPEG, "tif": Format.TIFF}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter: ``read`` returns the value of its text or raises ``BadRequest``.

    ``schema`` is the JSON schema of the text's value, and ``aliases`` are other names.
    """

    name: str
    description: str
    schema: dict[str, Any]
    read: Callable[[str], Any]
    aliases: tuple[str, ...] = ()


def _number(name: str, description: str, bounds: tuple[int, int]) -> Parameter:
    least, most = bounds

    def read(text: str) -> int:
        if not _DIGITS.fullmatch(text):
            raise BadRequest(f"{name}: must be a whole number, not {_shown(text)}")
        value = int(text)
        if not least <= value <= most:
            raise BadRequest(f"{name}: must be from {least} to {most}, not {_shown(text)}")
        return value

    schema: dict[str, Any] = {"type": "integer", "minimum": least, "maximum": most}
    default = _DEFAULTS.get(name)
    if default is not None:
        schema["default"] = default
    return Parameter(name=name, description=description, schema=schema, read=read)


def _boolean(name: str, description: str, *, aliases: tuple[str, ...] = ()) -> Parameter:
    schema: dict[str, Any] = {"type": "boolean"}
    if _DEFAULTS[name] is not None:
        schema["default"] = _DEFAULTS[name]
    return Parameter(
        name=name,
        description=description,
        schema=schema,
        read=lambda text: _read_boolean(name, text),
        aliases=aliases,
    )


def _choice(
    name: str,
    description: str,
    kind: type[StrEnum],
    others: dict[str, StrEnum] | None = None,
    aliases: tuple[str, ...] = (),
    without: frozenset[StrEnum] = frozenset(),
) -> Parameter:
    values = {one.value: one for one in kind if one not in without} | (others or {})

    def read(text: str) -> str:
        value = values.get(text)
        if value is None:
            known = ", ".join(one for one in kind if one not in without)
            raise BadRequest(f"{name}: must be one of {known}, not {_shown(text)}")
        return value.value

    schema: dict[str, Any] = {"type": "string", "enum": list(values)}
    if name != "fit":  # whose default depends on the other parameters
        schema["default"] = _DEFAULTS[name].value
    return Parameter(name=name, description=description, schema=schema, read=read, aliases=aliases)


def _decimal(name: str, text: str) -> float:
    if not _DECIMAL.fullmatch(text):
        raise BadRequest(f"{name}: must be a number such as 12 or 0.5, not {_shown(text)}")
    value = float(text) if "." in text else int(text)
    least, most = NUMBER_BOUNDS[name]
    if not least <= value <= most:
        raise BadRequest(f"{name}: must be from {least:.12g} to {most:.12g}, not {_shown(text)}")
    return value


def _one_number(name: str, description: str) -> Parameter:
    least, most = NUMBER_BOUNDS[name]
    schema: dict[str, Any] = {"type": "number", "minimum": least, "maximum": most}
    default = _DEFAULTS[name]
    if default is not None:
        schema["default"] = default
    return Parameter(
        name=name, description=description, schema=schema, read=lambda text: _decimal(name, text)
    )


def _numbers(name: str, description: str, *, aliases: tuple[str, ...] = ()) -> Parameter:
    """A list of numbers with commas between them. ``ResizeOptions`` checks what they mean together."""
    length = LIST_LENGTHS[name]

    def read(text: str) -> list[float]:
        words = text.split(",")
        if len(words) != length:
            raise BadRequest(f"{name}: must be {length} numbers with commas, not {_shown(text)}")
        return [_decimal(name, word) for word in words]

    schema = {"type": "string", "pattern": f"^{_NUMBER_PATTERN}(,{_NUMBER_PATTERN}){{{length - 1}}}$"}
    return Parameter(name=name, description=description, schema=schema, read=read, aliases=aliases)


def _read_sharpen(text: str) -> bool | float:
    return text == "true" if text in {"true", "false"} else _decimal("sharpen", text)


def _read_watermark(text: str) -> str:
    try:
        return read_watermark("watermark", text)
    except ValueError as error:
        raise BadRequest(str(error)) from None


def _read_pad(text: str) -> float | list[float]:
    words = [_decimal("pad", word) for word in text.split(",")]
    if len(words) not in {1, LIST_LENGTHS["pad"]}:
        raise BadRequest(f"pad: must be one number or four with commas, not {_shown(text)}")
    return words if len(words) > 1 else words[0]


def _read_flip(text: str) -> str | None:
    """Return what ``flip`` means; true is that of sharp, which mirrors top and bottom."""
    if text in _BOOLEANS:
        return Flip.VERTICAL.value if _BOOLEANS[text] else None
    if text not in set(Flip):
        raise BadRequest(f"flip: must be one of {', '.join(Flip)}, not {_shown(text)}")
    return text


def _read_boolean(name: str, text: str) -> bool:
    value = _BOOLEANS.get(text)
    if value is None:
        raise BadRequest(f"{name}: must be true or false, not {_shown(text)}")
    return value


def _read_colour(text: str) -> str:
    match = _COLOUR.fullmatch(text)
    if match is None:
        raise BadRequest(f"background: must look like ffffff or #ffffff (%23ffffff), not {_shown(text)}")
    return f"#{match[1]}"


def _read_pages(text: str) -> str | None:
    try:
        return read_pages("pages", text)
    except ValueError as error:
        raise BadRequest(str(error)) from None


def _read_sizes(text: str) -> list[tuple[int | None, int | None]]:
    sizes = text.split(",")
    if len(sizes) > MAX_OUTPUTS:
        raise BadRequest(f"outputs: {len(sizes)} results are requested; {MAX_OUTPUTS} are allowed")
    return [_read_size(size) for size in sizes]


def _read_size(text: str) -> tuple[int | None, int | None]:
    match = _SIZE.fullmatch(text)
    if match is None or not (match[1] or match[2]):
        raise BadRequest(f"outputs: must be sizes like 320x240, 320x or x240, not {_shown(text)}")
    width, height = (int(side) if side else None for side in match.groups())
    for name, side in (("width", width), ("height", height)):
        least, most = INTEGER_BOUNDS[name]
        if side is not None and not least <= side <= most:
            raise BadRequest(f"outputs: a {name} must be from {least} to {most}, not {side}")
    return width, height


def _shown(text: str) -> str:
    return f'"{printable(text[:_SHOWN])}"'


_NUMBER_PATTERN = r"([0-9]{1,20}|[0-9]{0,20}\.[0-9]{1,20})"
_SIZES_PATTERN = r"([1-9][0-9]{0,9}x([1-9][0-9]{0,9})?|x[1-9][0-9]{0,9})"


def _read_placeholder(text: str) -> list[str]:
    try:
        return [one.value for one in read_placeholders(text.split(","))]
    except ValueError as error:
        raise BadRequest(str(error)) from None


_ONE_PLACEHOLDER = f"({'|'.join(Placeholder)})"

PLACEHOLDER = Parameter(
    name="placeholder",
    description="What the reply shall have that stands for the image until it is loaded, with commas between "
    f"them: {', '.join(f'`{one}`' for one in Placeholder)}.",
    schema={"type": "string", "pattern": f"^{_ONE_PLACEHOLDER}(,{_ONE_PLACEHOLDER}){{0,7}}$"},
    read=_read_placeholder,
)

_DECLARED = (
    _number("width", "Pixels of the result, as a viewer sees it.", INTEGER_BOUNDS["width"]),
    _number("height", "Likewise.", INTEGER_BOUNDS["height"]),
    _choice(
        "fit",
        "How the image is fitted into width and height. By default `fill` if both are given, and `inside`, "
        "which keeps the proportions, if one is.",
        Fit,
    ),
    _choice(
        "position",
        "What `cover` keeps, and where `contain` places the image.",
        Position,
        dict(_SHARP_POSITIONS),
        ("gravity",),
    ),
    _choice(
        "format",
        "Format of the result. `auto` is AVIF, JPEG XL or WebP if the header Accept names it, and otherwise "
        "the format of the image if the server writes it.",
        Format,
        dict(_SHARP_FORMATS),
        ("toFormat",),
    ),
    _number("quality", "Quality of a lossy result; by default the server's.", INTEGER_BOUNDS["quality"]),
    _number(
        "effort",
        "CPU time of the encoder for a smaller file, 0 is the fastest; by default the format's.",
        INTEGER_BOUNDS["effort"],
    ),
    _boolean("lossless", "Whether the result is lossless."),
    _number(
        "max_bytes",
        "Largest size of the result in bytes: the quality is lowered until it fits.",
        INTEGER_BOUNDS["max_bytes"],
    ),
    Parameter(
        name="background",
        description="Colour behind transparent areas and of the frame of `contain`, with or without `#`.",
        schema={
            "type": "string",
            "pattern": "^#?[0-9a-fA-F]{6}$",
            "default": str(_DEFAULTS["background"]).removeprefix("#"),
        },
        read=_read_colour,
    ),
    _choice("keep", "Metadata of the image that the result carries.", Keep),
    _number("page", "Page or frame of the image, from 0.", INTEGER_BOUNDS["page"]),
    Parameter(
        name="pages",
        description="Frames of an animation, `all` or the first and the last, such as `0-9`; the result is "
        "an animated WebP or GIF.",
        schema={"type": "string", "pattern": f"^({PAGES_PATTERN})$"},
        read=_read_pages,
    ),
    _boolean("enlarge", "Whether an image smaller than the target is enlarged."),
    Parameter(
        name="withoutEnlargement",
        description="The opposite of `enlarge`.",
        schema={"type": "boolean", "default": False},
        read=lambda text: not _read_boolean("withoutEnlargement", text),
    ),
    _numbers(
        "crop",
        "The part of the upright page to take: left, top, width and height; pixels if all four are whole, "
        "else fractions of the page from 0 to 1.",
        aliases=("extract",),
    ),
    _number(
        "trim",
        "Remove borders of one colour, that of the top left corner; the number is how much they may differ.",
        INTEGER_BOUNDS["trim"],
    ),
    Parameter(
        name="flip",
        description="Mirror the image: left and right, top and bottom, or both. `true` is `vertical`.",
        schema={"type": "string", "enum": [*Flip, *_BOOLEANS]},
        read=_read_flip,
    ),
    Parameter(
        name="flop",
        description="Whether left and right are mirrored; together with `flip=true` both are.",
        schema={"type": "boolean", "default": False},
        read=lambda text: _read_boolean("flop", text),
    ),
    _number(
        "rotate",
        "Degrees clockwise. What other angles than multiples of 90 uncover has the background.",
        INTEGER_BOUNDS["rotate"],
    ),
    _numbers(
        "focus", "The point that `cover` keeps as close to the centre as it can: x and y, as fractions."
    ),
    _numbers(
        "modulate",
        "Factors of brightness and saturation, such as `1.2,0.8`; 1 changes nothing.",
    ),
    _boolean("grey", "Whether the colours are removed.", aliases=("greyscale", "grayscale")),
    _one_number("blur", "Sigma of a Gaussian blur in pixels of the result."),
    Parameter(
        name="sharpen",
        description="`true` for what suits a thumbnail, or the sigma of an unsharp mask.",
        schema={"type": "string", "pattern": f"^(true|false|{_NUMBER_PATTERN})$", "default": "false"},
        read=_read_sharpen,
    ),
    Parameter(
        name="watermark",
        description="Name of an image that the server was started with, to be laid over the result.",
        schema={"type": "string", "pattern": f"^{WATERMARK_PATTERN}$"},
        read=_read_watermark,
    ),
    _choice(
        "watermark_position",
        "Where the watermark is placed.",
        Position,
        dict(_SHARP_POSITIONS),
        without=BY_CONTENT,
    ),
    _one_number("watermark_scale", "Width of the watermark as a part of that of the result."),
    _one_number("watermark_opacity", "How opaque the watermark is, from 0 to 1."),
    _number(
        "rounded",
        "Radius of the corners in pixels of the result; one of half a side or more makes a circle.",
        INTEGER_BOUNDS["rounded"],
    ),
    Parameter(
        name="pad",
        description="Border around the result in pixels of the background: one number, or top, right, "
        "bottom and left.",
        schema={"type": "string", "pattern": "^[0-9]{1,10}((,[0-9]{1,10}){3})?$"},
        read=_read_pad,
        aliases=("extend",),
    ),
    _boolean("progressive", "Whether a JPEG, PNG or GIF shows the whole image when its first part arrived."),
    _choice(
        "chroma",
        "How a lossy result stores colours: at half its width and height, or whole.",
        Chroma,
        aliases=("chromaSubsampling",),
    ),
    _boolean("palette", "Whether a PNG is reduced to at most 256 colours, by `quality`."),
    _boolean(
        "optimize",
        "Whether a JPEG gets Huffman tables of its own, which `effort` decides otherwise.",
        aliases=("optimizeCoding", "optimiseCoding"),
    ),
    _one_number(
        "min_ssim",
        "The quality is lowered as long as the SSIM of the result, 1 for an equal one, is at least this.",
    ),
    _number(
        "deadline_ms",
        "Milliseconds from the arrival of the image's last byte to the reply.",
        DEADLINE_MS_BOUNDS,
    ),
    PLACEHOLDER,
    Parameter(
        name="outputs",
        description=f"Sizes of 1 to {MAX_OUTPUTS} results, such as `320x,640x480,x1280`, instead of "
        "width and height; the other parameters hold for all of them.",
        schema={
            "type": "string",
            "pattern": f"^{_SIZES_PATTERN}(,{_SIZES_PATTERN}){{0,{MAX_OUTPUTS - 1}}}$",
        },
        read=_read_sizes,
    ),
)

PARAMETERS: dict[str, Parameter] = {one.name: one for one in _DECLARED}
"""All parameters by their names, in the order of the documentation."""

_BY_NAME = PARAMETERS | {alias: one for one in _DECLARED for alias in one.aliases}
_OPTION = {"withoutEnlargement": "enlarge"}
_FLOPPED = (Flip.HORIZONTAL.value, Flip.BOTH.value)
_OF_ALL_RESULTS = ("deadline_ms", "placeholder")
_SIDES = ("width", "height")


class ResizeParameters:
    """The parameters of one request, which are added one by one."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._given_as: dict[str, str] = {}

    @property
    def has_outputs(self) -> bool:
        """Whether the results are a list, if only of one."""
        return "outputs" in self._values

    @property
    def is_auto(self) -> bool:
        """Whether the format is to be chosen."""
        return self._values.get("format") == Format.AUTO

    @property
    def is_animated(self) -> bool:
        """Whether the result may have several frames."""
        return "pages" in self._values

    def add(self, name: str, text: str) -> None:
        """Add a parameter. Raises ``BadRequest`` if it is unknown, invalid, or given already."""
        self.check_name(name)
        parameter = _BY_NAME[name]
        option = _OPTION.get(parameter.name, parameter.name)
        if option in self._given_as:
            before = self._given_as[option]
            raise BadRequest(f"{name}: is given twice" + ("" if before == name else f", before as {before}"))
        self._given_as[option] = name
        self._values[option] = parameter.read(text)
        if "flop" in self._values and self._values.get("flip") in _FLOPPED:
            raise BadRequest(f"flop: leave it out; flip is '{self._values['flip']}'")
        if self.has_outputs and not self._values.keys().isdisjoint(_SIDES):
            raise BadRequest("outputs: has all sizes; leave out width and height")

    def check_name(self, name: str) -> None:
        """Raise ``BadRequest`` unless there is a parameter of this name."""
        if name not in _BY_NAME:
            raise BadRequest(f"{_name(name)}: is no parameter; there are {', '.join(_BY_NAME)}")

    def meta(self, auto: Format | None) -> dict[str, Any]:
        """Return the meta of the RESIZE; ``auto`` is the format that the client prefers, if any."""
        values = dict(self._values)
        if values.pop("flop", False):
            values["flip"] = (Flip.BOTH if values.get("flip") else Flip.HORIZONTAL).value
        common = {name: values.pop(name) for name in _OF_ALL_RESULTS if name in values}
        if self.is_auto and auto is not None:
            values["format"] = auto.value
        sizes = values.pop("outputs", None)
        if sizes is None:
            return {**common, **_with_fit(values)}
        return {
            **common,
            "outputs": [_with_fit({**_sides(width, height), **values}) for width, height in sizes],
        }


def _sides(width: int | None, height: int | None) -> dict[str, int]:
    sides = {"width": width, "height": height}
    return {name: side for name, side in sides.items() if side is not None}


def _with_fit(options: dict[str, Any]) -> dict[str, Any]:
    if "fit" in options:
        return options
    return {**options, "fit": default_fit(options.get("width"), options.get("height")).value}


def _name(name: str) -> str:
    return printable(name[:_SHOWN]) or "a parameter without a name"
