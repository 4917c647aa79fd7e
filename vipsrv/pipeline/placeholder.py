"""Make what stands for an image until it is loaded: ThumbHash, BlurHash, dominant and average colour.

Sources of the algorithms: https://github.com/evanw/thumbhash (the reference code in ``js/thumbhash.js``) and
https://github.com/woltapp/blurhash/blob/master/Algorithm.md. Both are cosine transforms of a small image,
which are products of matrices here: all four take 2 ms for 100 × 75 pixels.
"""

from base64 import b64encode
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipsrv.options import Placeholder, Placeholders, ResizeOptions
from vipsrv.pipeline.pixels import BANDS, pixels_within
from vipsrv.pipeline.resize import Result, resize
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.view import view_of

SIDE = 100
"""Pixels: ThumbHash is defined for images of at most this, and all are made from the same."""

_Floats = NDArray[np.float64]

_LEVELS = 16
"""Steps of each channel in the histogram of which the fullest cell is the dominant colour."""

_MOST_COMPONENTS = 4
"""Of a BlurHash, along the longer side."""

_BASE_83 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz#$%*+,-.:;=?@[]^_{|}~"


def resize_and_describe(
    upload: Upload, outputs: Sequence[ResizeOptions], asked: Collection[Placeholder], **terms: Any
) -> tuple[Result, Placeholders | None]:
    """Run a job as ``resize`` does, with the same ``terms`` and errors, and return what is ``asked`` as well.

    That describes the whole page of the first output, the first of its frames, or the first page if there is
    none; its small image is one result more, which shares the decode of the others.
    """
    if not asked:
        return resize(upload, outputs, **terms), None
    small = pixels_within(SIDE, page=view_of(outputs[0]).page if outputs else 0)
    result = resize(upload, outputs, pixels=(small,), **terms)
    (pixels,) = result.pixels
    return result, placeholders(pixels.data, pixels.info.width, pixels.info.height, asked)


def placeholders(data: bytes, width: int, height: int, asked: Collection[Placeholder]) -> Placeholders:
    """Return what is ``asked`` of an image of 8-bit sRGB with alpha.

    Colours under full transparency count for nothing. A BlurHash, which has no transparency, is that of the
    image on white.
    """
    pixels = np.frombuffer(data, np.uint8).reshape(height, width, BANDS).astype(np.float64) / 255
    colours, alpha = pixels[..., :3], pixels[..., 3]
    found: dict[Placeholder, str] = {}
    if Placeholder.THUMBHASH in asked:
        found[Placeholder.THUMBHASH] = b64encode(thumbhash(colours, alpha)).decode()
    if Placeholder.BLURHASH in asked:
        found[Placeholder.BLURHASH] = blurhash(colours * alpha[..., None] + 1 - alpha[..., None])
    if Placeholder.DOMINANT in asked:
        found[Placeholder.DOMINANT] = _hex(dominant(colours, alpha))
    if Placeholder.AVERAGE in asked:
        found[Placeholder.AVERAGE] = _hex(average(colours, alpha))
    return Placeholders(**{name.value: value for name, value in found.items()})


def average(colours: _Floats, alpha: _Floats) -> _Floats:
    """Return the average of the sRGB values, weighted by alpha; white if nothing is seen."""
    seen = alpha.sum()
    if not seen:
        return np.ones(3)
    mean: _Floats = (colours * alpha[..., None]).sum(axis=(0, 1)) / seen
    return mean


def dominant(colours: _Floats, alpha: _Floats) -> _Floats:
    """Return the average of those pixels that are in the fullest cell of a histogram of the colours."""
    cells = np.minimum((colours * _LEVELS).astype(np.intp), _LEVELS - 1) @ np.array([_LEVELS**2, _LEVELS, 1])
    counts = np.bincount(cells.ravel(), weights=alpha.ravel(), minlength=_LEVELS**3)
    return average(colours, alpha * (cells == counts.argmax()))


def thumbhash(colours: _Floats, alpha: _Floats) -> bytes:
    """Return the ThumbHash of an image of at most ``SIDE`` pixels on a side."""
    height, width = alpha.shape
    longer = max(width, height)
    has_alpha = bool(alpha.sum() < width * height)
    mean = average(colours, alpha) if alpha.any() else np.zeros(3)
    red, green, blue = np.moveaxis(mean * (1 - alpha[..., None]) + alpha[..., None] * colours, -1, 0)
    most = 5 if has_alpha else 7  # terms of the luma; alpha takes the room of the others
    across, down = (max(1, _round(most * side / longer)) for side in (width, height))
    luma = _Channel((red + green + blue) / 3, max(3, across), max(3, down))
    yellow_blue = _Channel((red + green) / 2 - blue, 3, 3)
    red_green = _Channel(red - green, 3, 3)
    channels = [luma, yellow_blue, red_green]
    is_landscape = width > height
    head = (
        _round(63 * luma.mean)
        | _round(31.5 + 31.5 * yellow_blue.mean) << 6
        | _round(31.5 + 31.5 * red_green.mean) << 12
        | _round(31 * luma.scale) << 18
        | has_alpha << 23
    )
    shape = (
        (down if is_landscape else across)
        | _round(63 * yellow_blue.scale) << 3
        | _round(63 * red_green.scale) << 9
        | is_landscape << 15
    )
    made = bytearray(head.to_bytes(3, "little") + shape.to_bytes(2, "little"))
    if has_alpha:
        opacity = _Channel(alpha, 5, 5)
        channels.append(opacity)
        made.append(_round(15 * opacity.mean) | _round(15 * opacity.scale) << 4)
    steps = [_round(15 * term) for channel in channels for term in channel.terms]
    steps += [0] * (len(steps) % 2)
    made += bytes(low | high << 4 for low, high in zip(steps[::2], steps[1::2], strict=True))
    return bytes(made)


class _Channel:
    """The cosine terms of one channel of a ThumbHash: its ``mean``, and the others, from 0 to 1, relative to
    the largest one.
    """

    def __init__(self, values: _Floats, across: int, down: int) -> None:
        height, width = values.shape
        found = _cosines(down, height, 0.5) @ values @ _cosines(across, width, 0.5).T / (width * height)
        self.mean = float(found[0, 0])
        # A triangle: fewer terms across for the finer ones from top to bottom.
        terms = [
            float(found[row, column])
            for row in range(down)
            for column in range(across)
            if (row or column) and column * down < across * (down - row)
        ]
        self.scale = max(map(abs, terms))
        self.terms = [0.5 + 0.5 / self.scale * term for term in terms] if self.scale else terms


def blurhash(colours: _Floats) -> str:
    """Return the BlurHash: up to four components along the longer side, at least one along the other."""
    height, width, _ = colours.shape
    longer = max(width, height)
    across, down = (max(1, _round(_MOST_COMPONENTS * side / longer)) for side in (width, height))
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)  # noqa: PLR2004
    terms = np.einsum("jy,yxc,ix->jic", _cosines(down, height, 0), linear, _cosines(across, width, 0))
    terms *= 2 / (width * height)
    terms[0, 0] /= 2
    mean, *others = terms.reshape(-1, 3)
    largest = _floor(max(0.0, min(82.0, np.abs(others).max() * 166 - 0.5))) if others else 0
    scale = (largest + 1) / 166
    codes = [_base_83(across - 1 + (down - 1) * 9, 1), _base_83(largest, 1)]
    red, green, blue = (_floor(one * 255 + 0.5) for one in _to_srgb(mean))
    codes.append(_base_83(red << 16 | green << 8 | blue, 4))
    for term in others:
        ratio = term / scale
        steps = [max(0, min(18, _floor(one * 9 + 9.5))) for one in np.sign(ratio) * np.abs(ratio) ** 0.5]
        codes.append(_base_83((steps[0] * 19 + steps[1]) * 19 + steps[2], 2))
    return "".join(codes)


def _cosines(count: int, side: int, offset: float) -> _Floats:
    """Return the first cosine functions over a side; ``offset`` is where within a pixel they are taken."""
    waves: _Floats = np.cos(np.pi / side * np.outer(np.arange(count), np.arange(side) + offset))
    return waves


def _to_srgb(linear: _Floats) -> _Floats:
    linear = np.clip(linear, 0, 1)
    coded: _Floats = np.where(
        linear <= 0.0031308,  # noqa: PLR2004 - IEC 61966-2-1, as the other numbers
        linear * 12.92,
        1.055 * linear ** (1 / 2.4) - 0.055,
    )
    return coded


def _base_83(value: int, digits: int) -> str:
    return "".join(_BASE_83[value // 83**place % 83] for place in reversed(range(digits)))


def _hex(colour: _Floats) -> str:
    return "#" + bytes(_round(255 * float(one)) for one in colour).hex()


def _round(value: float) -> int:
    """Round half up, as the reference code does."""
    return _floor(value + 0.5)


def _floor(value: float) -> int:
    return int(np.floor(value))
