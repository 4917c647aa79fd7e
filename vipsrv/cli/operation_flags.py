"""The flags of the operations on an image, such as ``--crop``, which both commands for images take.

Those of ``encoder_flags`` are added in the same way.

``with_operations`` adds them to a command, whose function gets the ones that were given as ``operations``.
"""

import inspect
import re
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, TypeVar

import typer

from vipsrv.cli.encoder_flags import ENCODER_FLAGS
from vipsrv.options import BY_CONTENT, INTEGER_BOUNDS, NUMBER_BOUNDS, Flip, Position

_Command = TypeVar("_Command", bound=Callable[..., Any])

_NUMBER = re.compile(r"\d{1,20}|\d{0,20}\.\d{1,20}", re.ASCII)


def parse_numbers(text: str) -> list[float]:
    """Parse numbers such as ``0,0.5,1``. Raises ``typer.BadParameter``."""
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not _NUMBER.fullmatch(word):
            raise typer.BadParameter(f"{word!r} is not a number; write numbers with commas between them")
    return [float(word) if "." in word else int(word) for word in words]


def parse_number_or_numbers(text: str) -> float | list[float]:
    """Parse one number, or several with commas between them. Raises ``typer.BadParameter``."""
    numbers = parse_numbers(text)
    return numbers if len(numbers) > 1 else numbers[0]


def _numbers(flag: str, metavar: str, help_: str) -> Any:
    return Annotated[Any, typer.Option(flag, metavar=metavar, parser=parse_numbers, help=help_)]


def parse_true_or_number(text: str) -> bool | float:
    """Parse ``true``, ``false`` or a number. Raises ``typer.BadParameter``."""
    if text in {"true", "false"}:
        return text == "true"
    if not _NUMBER.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is neither 'true' nor a number")
    return float(text)


def _number(flag: str, metavar: str, help_: str) -> Any:
    least, most = NUMBER_BOUNDS[flag.removeprefix("--").replace("-", "_")]
    return Annotated[float | None, typer.Option(flag, min=least, max=most, metavar=metavar, help=help_)]


def _whole(flag: str, metavar: str, help_: str) -> Any:
    least, most = INTEGER_BOUNDS[flag.removeprefix("--")]
    return Annotated[int | None, typer.Option(flag, min=least, max=most, metavar=metavar, help=help_)]


OPERATION_FLAGS: dict[str, Any] = {
    "crop": _numbers(
        "--crop",
        "LEFT,TOP,WIDTH,HEIGHT",
        "The part of the upright image to take: pixels if all four are whole, else fractions from 0 to 1.",
    ),
    "trim": _whole(
        "--trim",
        "THRESHOLD",
        "Remove borders of one colour, that of the top left corner; 0 to 255 is how much they may differ.",
    ),
    "flip": Annotated[Flip | None, typer.Option("--flip", help="Mirror the image.")],
    "rotate": _whole("--rotate", "DEGREES", "Rotate clockwise; corners get the background."),
    "focus": _numbers(
        "--focus", "X,Y", "A point, as fractions, that cover keeps as close to the centre as it can."
    ),
    "modulate": _numbers(
        "--modulate", "BRIGHTNESS,SATURATION", "Factors of brightness and saturation; 1 changes nothing."
    ),
    "grey": Annotated[bool | None, typer.Option("--grey", help="Remove the colours.")],
    "blur": _number("--blur", "SIGMA", "Blur by a Gaussian; sigma is pixels of the result."),
    "sharpen": Annotated[
        Any,
        typer.Option(
            "--sharpen",
            metavar="true|SIGMA",
            parser=parse_true_or_number,
            help="Sharpen: 'true' for what suits a thumbnail, or the sigma of an unsharp mask.",
        ),
    ],
    "watermark": Annotated[
        str | None,
        typer.Option(
            "--watermark",
            metavar="NAME",
            help="Lay this image of the server over the result.",
        ),
    ],
    "watermark_position": Annotated[
        str | None,
        typer.Option(
            "--watermark-position",
            metavar="PLACE",
            help="Where the watermark is placed: "
            f"{', '.join(one for one in Position if one not in BY_CONTENT)}.  [default: right bottom]",
        ),
    ],
    "watermark_scale": _number(
        "--watermark-scale",
        "PART",
        "Width of the watermark as a part of that of the result.  [default: 0.25]",
    ),
    "watermark_opacity": _number("--watermark-opacity", "0-1", "How opaque the watermark is.  [default: 1]"),
    "rounded": _whole("--rounded", "PIXELS", "Round the corners with this radius."),
    "pad": Annotated[
        Any,
        typer.Option(
            "--pad",
            metavar="PIXELS",
            parser=parse_number_or_numbers,
            help="A border around the result; four numbers with commas are top, right, bottom and left.",
        ),
    ],
}
"""The type of each flag by the name of its option. A flag that is not given is ``None``."""

_FLAGS = OPERATION_FLAGS | ENCODER_FLAGS


def with_operations(command: _Command) -> _Command:
    """Add the flags to a command, whose keyword parameter ``operations`` they replace."""
    own = inspect.signature(command)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=flag)
        for name, flag in _FLAGS.items()
    ]

    @wraps(command)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        given = {name: named.pop(name) for name in _FLAGS}
        operations = {name: value for name, value in given.items() if value is not None}
        return command(*arguments, **named, operations=operations)

    parameters: list[inspect.Parameter] = []
    for name, one in own.parameters.items():
        parameters.extend(added if name == "operations" else [one])
    wrapper.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {one.name: one.annotation for one in parameters}
    return wrapper  # type: ignore[return-value]
