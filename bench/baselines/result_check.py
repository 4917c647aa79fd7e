"""Whether a result is what was asked for: format, size, and for a JPEG subsampling, quality and its end."""

import io
from collections.abc import Callable

from PIL import Image, UnidentifiedImageError

from bench.jpeg_header import read_header

SUBSAMPLING = "4:2:0"
_END = b"\xff\xd9"


def checker(*, format: str, width: int, height: int, quality: int) -> Callable[[bytes], str | None]:  # noqa: A002
    """Return the function that says what is wrong with a result, and ``None`` if nothing is."""

    def check(result: bytes) -> str | None:
        if format == "jpeg":
            return _problem_of_jpeg(result, width, height, quality)
        return _problem(result, format, width, height)

    return check


def _problem_of_jpeg(result: bytes, width: int, height: int, quality: int) -> str | None:
    try:
        header = read_header(result)
    except ValueError as error:
        return f"{error}, but a JPEG was asked for"
    if not result.endswith(_END):
        return "the JPEG has no end"
    wrong = [
        f"{name} is {made}, not {asked}"
        for name, made, asked in (
            ("the size", f"{header.width} × {header.height}", f"{width} × {height}"),
            ("the subsampling", header.subsampling, SUBSAMPLING),
            ("the quality", header.quality, quality),
        )
        if made != asked
    ]
    return "; ".join(wrong) or None


def _problem(result: bytes, name: str, width: int, height: int) -> str | None:
    try:
        with Image.open(io.BytesIO(result)) as image:
            made = f"{image.format} of {image.width} × {image.height}"
    except UnidentifiedImageError:
        return f"this is no image, but {name} was asked for"
    asked = f"{name.upper()} of {width} × {height}"
    return None if made == asked else f"{made}, not {asked}"
