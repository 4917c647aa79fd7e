"""Compare the efforts of an encoder by CPU time, bytes and SSIM, over real and drawn photos.

    python -m bench.tools.effort [FILE or FOLDER …] [--format avif] [--ways 3,0,1,2] [--qualities 40,60,75]

Each image is reduced to ``--width`` × ``--height`` once, by a full decode and Lanczos. Each way then encodes
it in each quality, in turns. A way is an effort, or ``default``, and any arguments of libvips' saver:
``1+tune=ssim``. SSIM is between the result and the reduced image. With ``--lossless`` there is one quality.

The first table has the medians over all images. The second compares each way with the first one at equal
SSIM: on the curve of each image it looks for the quality at which the way has the SSIM that the first way has
in each of the qualities, and the CPU time and bytes there. Without files it takes the drawn images.
"""

import itertools
import math
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

os.environ["VIPS_CONCURRENCY"] = "1"  # read by libvips when it is loaded

import numpy as np
import pyvips
import typer

from bench.image_quality import Pixels, colour_difference, reference, ssim
from bench.image_quality import decode as decode_by_pillow
from bench.images import image_file
from vipsrv.options import MAX_EFFORT, Format, ResizeOptions
from vipsrv.pipeline.formats.registry import all_formats
from vipsrv.pipeline.formats.writer import Writer

IMAGES = ("jpeg-1.9mp.jpg", "jpeg-6mp.jpg", "jpeg-12mp.jpg")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".avif", ".tif"}
DEFAULT = "default"
MAX_QUALITY = 100


@dataclass(frozen=True)
class Way:
    """A name for the tables and the arguments of the saver, without the quality."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Point:
    """What one way made of an image at one quality: median CPU milliseconds, bytes, SSIM, colour."""

    milliseconds: float
    size: int
    likeness: float
    colour: float


Curve = dict[int, Point]
"""The points of one way and one image by their quality."""


def _writer(format_: Format) -> Writer:
    for one in all_formats():
        if one.writer is not None and one.writer.format is format_:
            return one.writer
    raise typer.BadParameter(f"{format_} is not written")


def _way(text: str, writer: Writer, *, lossless: bool) -> Way:
    effort, *others = text.split("+")
    if effort != DEFAULT and effort not in map(str, range(MAX_EFFORT + 1)):
        raise typer.BadParameter(f"{effort!r} is no effort from 0 to {MAX_EFFORT}", param_hint="--ways")
    asked = None if effort == DEFAULT else int(effort)
    arguments = writer.arguments(
        ResizeOptions(width=1, height=1, format=writer.format, lossless=lossless, effort=asked)
    )
    for other in others:
        name, _, value = other.partition("=")
        arguments[name] = int(value) if value.isdecimal() else value
    return Way(text, arguments)


def _qualities(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.isdecimal() and 1 <= int(word) <= MAX_QUALITY for word in words):
        raise typer.BadParameter(
            f"{text!r} is no list of qualities from 1 to {MAX_QUALITY}", param_hint="--qualities"
        )
    return sorted(map(int, words))


def image_paths(paths: list[Path]) -> Iterator[Path]:
    """Yield the images that were named, and those in named folders; without any, the drawn ones."""
    if not paths:
        yield from (image_file(name) for name in IMAGES)
    for path in paths:
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (one for one in found if one.suffix.lower() in SUFFIXES)


def _curves(
    pixels: Pixels, writer: Writer, ways: list[Way], qualities: list[int], rounds: int
) -> list[Curve]:
    image = pyvips.Image.new_from_memory(
        pixels.tobytes(), pixels.shape[1], pixels.shape[0], pixels.shape[2], "uchar"
    ).copy(interpretation="srgb")
    curves: list[Curve] = [{} for _ in ways]
    for quality in qualities:
        times: list[list[float]] = [[] for _ in ways]
        results = [b""] * len(ways)
        for _ in range(rounds):
            for number, way in enumerate(ways):
                start = time.process_time()
                arguments = {"keep": "none", **({"Q": quality} if writer.lossy else {}), **way.arguments}
                results[number] = pyvips.Operation.call(writer.saver, image, **arguments)
                times[number].append((time.process_time() - start) * 1e3)
        for curve, own, data in zip(curves, times, results, strict=True):
            seen = decode_by_pillow(data)
            curve[quality] = Point(
                statistics.median(own), len(data), ssim(seen, pixels), colour_difference(seen, pixels)
            )
    return curves


def at_likeness(curve: Curve, likeness: float) -> tuple[float, float, float] | None:
    """Return quality, bytes and milliseconds at which a way has this SSIM, between two points of its curve.

    ``None`` if no two neighbours of the curve enclose it. Bytes are interpolated by their logarithm.
    """
    points = sorted(curve.items())
    for (low, one), (high, other) in itertools.pairwise(points):
        if one.likeness <= likeness <= other.likeness and one.likeness < other.likeness:
            part = (likeness - one.likeness) / (other.likeness - one.likeness)
            size = math.log(one.size) + part * math.log(other.size / one.size)
            milliseconds = one.milliseconds + part * (other.milliseconds - one.milliseconds)
            return low + part * (high - low), math.exp(size), milliseconds
    return None


def _print_medians(ways: list[Way], qualities: list[int], curves: list[list[Curve]]) -> None:
    print(
        f"{'way':24}{'quality':>8}{'CPU ms':>9}{'of first':>9}{'KB':>8}{'of first':>9}"
        f"{'SSIM':>8}{'colour':>8}"
    )
    for number, way in enumerate(ways):
        for quality in qualities:
            own = [of_image[number][quality] for of_image in curves]
            first = [of_image[0][quality] for of_image in curves]
            pairs = list(zip(own, first, strict=True))
            print(
                f"{way.name:24}{quality:8}{statistics.median(one.milliseconds for one in own):9.1f}"
                f"{statistics.median(one.milliseconds / base.milliseconds for one, base in pairs):9.3f}"
                f"{statistics.median(one.size for one in own) / 1e3:8.1f}"
                f"{statistics.median(one.size / base.size for one, base in pairs):9.3f}"
                f"{statistics.median(one.likeness for one in own):8.4f}"
                f"{statistics.median(one.colour for one in own):8.2f}"
            )


def _print_at_equal_likeness(ways: list[Way], qualities: list[int], curves: list[list[Curve]]) -> None:
    print(f"\nAt the SSIM of {ways[0].name}, medians over the images (and the worst of bytes):")
    print(f"{'way':24}{'quality':>8}{'is':>8}{'CPU':>8}{'bytes':>8}{'worst':>8}{'images':>8}")
    for number, way in enumerate(ways[1:], start=1):
        for quality in qualities:
            rows = []
            for of_image in curves:
                wanted = of_image[0][quality]
                found = at_likeness(of_image[number], wanted.likeness)
                if found is not None:
                    rows.append((found[0], found[2] / wanted.milliseconds, found[1] / wanted.size))
            if rows:
                asked, cost, size = (statistics.median(column) for column in zip(*rows, strict=True))
                worst = max(row[2] for row in rows)
                print(f"{way.name:24}{quality:8}{asked:8.1f}{cost:8.3f}{size:8.3f}{worst:8.3f}{len(rows):8}")


def main(
    paths: Annotated[list[Path] | None, typer.Argument(help="Images, or folders of them.")] = None,
    format_: Annotated[Format, typer.Option("--format", help="The format of the results.")] = Format.AVIF,
    ways: Annotated[str, typer.Option(help="Efforts, each with '+name=value' for the saver.")] = "3,0,1,2",
    qualities: Annotated[str, typer.Option(help="Of the results, 1 to 100.")] = "40,60,75,85,95",
    width: Annotated[int, typer.Option(help="Of the results, in pixels.")] = 800,
    height: Annotated[int, typer.Option(help="Likewise.")] = 600,
    rounds: Annotated[int, typer.Option(min=1, help="Encodes of each; CPU time is their median.")] = 3,
    *,
    lossless: Annotated[bool, typer.Option("--lossless", help="Compare lossless results.")] = False,
    each: Annotated[bool, typer.Option("--each", help="Also print the points of each image.")] = False,
) -> None:
    """Print the two tables."""
    pyvips.cache_set_max(0)
    writer = _writer(format_)
    all_ways = [_way(text, writer, lossless=lossless) for text in ways.split(",")]
    asked = [100] if lossless else _qualities(qualities)
    curves = []
    for path in image_paths(paths or []):
        pixels = np.ascontiguousarray(reference(path, width, height))
        curves.append(_curves(pixels, writer, all_ways, asked, rounds))
        if each:
            for way, curve in zip(all_ways, curves[-1], strict=True):
                for quality, point in curve.items():
                    print(
                        f"{path.name:28}{way.name:24}{quality:4}{point.milliseconds:9.1f} ms"
                        f"{point.size:9} bytes  SSIM {point.likeness:.4f}  colour {point.colour:.2f}",
                        flush=True,
                    )
    if not curves:
        raise typer.BadParameter(f"no file there ends with {', '.join(sorted(SUFFIXES))}", param_hint="FILE")
    print(f"{len(curves)} images in {width} x {height} as {format_}, medians of {rounds} rounds")
    _print_medians(all_ways, asked, curves)
    _print_at_equal_likeness(all_ways, asked, curves)


if __name__ == "__main__":
    typer.run(main)
