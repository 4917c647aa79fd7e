"""Make the options of each requested result from the arguments of the command line."""

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import typer

from vipsrv.options import Fit, Format, ResizeOptions, default_fit
from vipsrv.protocol import DEFAULT_HEIGHT, DEFAULT_WIDTH

Size = tuple[int | None, int | None]
"""Width and height in pixels; one of them may be left out."""

FORMAT_OF_ENDING = {
    **{f".{format_}": format_ for format_ in Format if format_ is not Format.AUTO},
    ".jpg": Format.JPEG,
    ".tif": Format.TIFF,
}

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}


def outputs_for(
    size: Size, sizes: Sequence[Size], *, fit: Fit | None, **options: Any
) -> tuple[ResizeOptions, ...]:
    """Return the options of one result for each of ``sizes`` or, if there are none, for ``size``.

    Sizes are pixels; if neither side is given, the size is 800 × 600, as in the original server. If one side
    is given and no ``fit``, the image keeps its proportions. Raises ``ValueError``.
    """
    if sizes and size != (None, None):
        raise ValueError("--output-sizes replaces --width and --height; use one or the other")
    if size == (None, None):
        size = DEFAULT_WIDTH, DEFAULT_HEIGHT
    return tuple(
        ResizeOptions(width=width, height=height, fit=fit or default_fit(width, height), **options)
        for width, height in sizes or [size]
    )


def choose_format(asked: Format | None, output: Path | None) -> Format:
    """Choose the format of a result: ``asked``, or that of the ending of the ``output`` file, or JPEG.

    Raises ``ValueError`` if the two contradict each other.
    """
    ending = None
    if output is not None and not output.is_dir():
        ending = FORMAT_OF_ENDING.get(output.suffix.lower())
    if asked is None:
        return ending or Format.JPEG
    if ending is not None and asked not in (ending, Format.AUTO):
        raise ValueError(
            f"--format {asked} contradicts --output {output}, whose ending means {ending}; change one of them"
        )
    return asked


def version_1_size(outputs: Sequence[ResizeOptions], deadline_ms: int | None) -> tuple[int, int]:
    """Return the width and height for a version 1 request.

    Raises ``ValueError`` if ``outputs`` or ``deadline_ms`` need version 2.
    """
    if len(outputs) > 1:
        raise ValueError("--output-sizes: version 1 of the protocol returns one result; use --protocol 2")
    options = outputs[0]
    if options.width is None or options.height is None:
        raise ValueError("version 1 of the protocol needs both --width and --height")
    other = set(options.to_meta()) - {"width", "height"}
    if deadline_ms is not None:
        other.add("deadline")
    if other:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(other))
        raise ValueError(
            f"{flags}: version 1 of the protocol has only a width and a height; use --protocol 2"
        )
    return options.width, options.height


def parse_sizes(text: str, *, option: str = "--output-sizes") -> list[Size]:
    """Parse sizes such as ``320x,x480,800x600``. Raises ``ValueError``, also for a size given twice.

    Its message names the ``option``.
    """
    sizes: list[Size] = []
    for word in text.split(","):
        match = re.fullmatch(r"(\d{0,10})[xX](\d{0,10})", word.strip(), re.ASCII)
        if match is None or not any(match.groups()):
            raise ValueError(
                f"{option}: {word.strip()!r} is not a size; write 800x600, 320x or x480, separated by commas"
            )
        width, height = (int(side) if side else None for side in match.groups())
        if (width, height) in sizes:
            raise ValueError(f"{option}: {word.strip()} is given twice")
        sizes.append((width, height))
    return sizes


def parse_bytes(option: str, text: str) -> int:
    """Parse a number of bytes such as ``100000``, ``100KB`` or ``1.5MiB``.

    Raises ``ValueError`` with a message that names the ``option``.
    """
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?)\s*([kmg]i?)?b?", text.strip().lower(), re.ASCII)
    if match is None:
        raise ValueError(f"{option}: {text!r} is not a size; write a number of bytes, 100KB or 1.5MiB")
    return int(Fraction(match[1]) * _UNITS[match[2] or ""])


def parse_format(text: str) -> Format:
    """Parse the value of ``--format``, in which ``jpg`` means ``jpeg``. Raises ``typer.BadParameter``."""
    try:
        return Format(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(Format)}") from None
