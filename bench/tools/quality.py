"""Compare three ways to reduce an image by CPU time and SSIM.

    python -m bench.tools.quality [FILE or FOLDER …] [--rounds 5]

All of them make a JPEG of quality 85 from the bytes of an image:

========= =====================================================================
whole     everything decoded, then reduced with Lanczos by libvips
thumbnail ``thumbnail_buffer`` and ``jpegsave_buffer``, as generally recommended
pipeline  ``vipsrv.pipeline``, as the server runs it
========= =====================================================================

Each result is compared by SSIM with its reference (``bench.image_quality``). The exit code is 1 if a result
of the pipeline is below both 0.98 and ``thumbnail_buffer``'s value less 0.01. CPU time is the least of the
rounds, with one thread and without libvips' cache. ``1/4`` is how much the decoder reduced a JPEG.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

os.environ["VIPS_CONCURRENCY"] = "1"  # read by libvips when it is loaded

import pyvips
import typer

from bench.image_quality import decode, reference, ssim
from bench.images import image_file
from vipsrv import pipeline
from vipsrv.errors import RequestError
from vipsrv.options import ImageInfo, ResizeOptions
from vipsrv.pipeline.formats.jpeg.shrink import shrink_factor
from vipsrv.worker_config import WorkerConfig

IMAGES = (
    "jpeg-0.3mp.jpg",
    "jpeg-1.9mp.jpg",
    "jpeg-6mp.jpg",
    "jpeg-12mp.jpg",
    "png-3mp.png",
    "webp-6mp.webp",
)
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
WIDTHS = (1280, 800, 320, 100)
QUALITY = 85
TOLERANCE = 0.01
FIRST_SWAPPED = 5
"""The EXIF orientations from this one on swap width and height."""
GOOD = 0.98

Way = Callable[[bytes, int, int], bytes]

_LIMITS = WorkerConfig(max_pixels=10**9, max_output_pixels=10**9)


def whole(data: bytes, width: int, height: int) -> bytes:
    """Decode everything and reduce it with Lanczos."""
    image = pyvips.Image.new_from_buffer(data, "").autorot()
    if image.get_typeof("icc-profile-data"):
        image = image.icc_transform("srgb", embedded=True, depth=8)
    image = image.colourspace("srgb").resize(width / image.width, vscale=height / image.height)
    return _encoded(image)


def thumbnail(data: bytes, width: int, height: int) -> bytes:
    """Use ``thumbnail_buffer``."""
    has_profile = pyvips.Image.new_from_buffer(data, "").get_typeof("icc-profile-data")
    profile = {"output_profile": "srgb"} if has_profile else {}
    return _encoded(pyvips.Image.thumbnail_buffer(data, width, height=height, size="force", **profile))


def own(data: bytes, width: int, height: int) -> bytes:
    """Use the server's pipeline."""
    options = ResizeOptions(width=width, height=height)
    upload = pipeline.Upload.from_memory(data)
    return pipeline.resize(upload, [options], config=_LIMITS).outputs[0].data


WAYS: dict[str, Way] = {"whole": whole, "thumbnail": thumbnail, "pipeline": own}


def _encoded(image: pyvips.Image) -> bytes:
    data: bytes = image.jpegsave_buffer(Q=QUALITY, keep="none")
    return data


def _cpu_milliseconds(way: Way, data: bytes, width: int, height: int, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.process_time()
        way(data, width, height)
        times.append(time.process_time() - start)
    return min(times) * 1e3


def _files(paths: list[Path]) -> Iterator[Path]:
    if not paths:
        yield from (image_file(name) for name in IMAGES)
    for path in paths:
        yield from sorted(path.rglob("*")) if path.is_dir() else [path]


def _sizes(info: ImageInfo) -> Iterator[tuple[int, int]]:
    """The image's own aspect ratio in several widths, and one that is stretched."""
    width, height = info.upright_size
    for across in WIDTHS:
        if across <= width:
            yield across, max(1, round(across * height / width))
    yield max(1, width // 3), max(1, height // 7)


def _row(path: Path, rounds: int) -> Iterator[bool]:
    data = path.read_bytes()
    info = pipeline.read_info(pipeline.Upload.from_memory(data))
    for width, height in _sizes(info):
        wanted = reference(path, width, height)
        cost = {name: _cpu_milliseconds(way, data, width, height, rounds) for name, way in WAYS.items()}
        likeness = {name: ssim(decode(way(data, width, height)), wanted) for name, way in WAYS.items()}
        good = likeness["pipeline"] >= min(likeness["thumbnail"] - TOLERANCE, GOOD)
        stored = info.swap_if_rotated(width, height)
        scale = f"1/{shrink_factor((info.width, info.height), stored)}" if info.format == "jpeg" else ""
        cells = "".join(f"{cost[name]:9.1f} {likeness[name]:.4f}" for name in WAYS)
        size = f"{width} x {height}"
        print(f"{path.name[:28]:28} {size:>12} {scale:>4}{cells} {'' if good else '  too low'}", flush=True)
        yield good


def main(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(exists=True, help="Images or folders of images. [default: the benchmarks' own]"),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each way is timed.")] = 5,
) -> None:
    """Print CPU milliseconds and SSIM of each way for each image and size."""
    files = [path for path in _files(paths or []) if path.suffix.lower() in SUFFIXES]
    if not files:
        raise typer.BadParameter(f"there is no image among them that ends with {', '.join(sorted(SUFFIXES))}")
    pipeline.start()
    print(f"{'':46}" + "".join(f"{name:>10} SSIM " for name in WAYS))
    good = True
    for path in files:
        try:
            good = all([*_row(path, rounds), good])
        except RequestError as error:
            print(f"{path.name[:28]:28} is refused: {error}")
    raise typer.Exit(0 if good else 1)


if __name__ == "__main__":
    typer.run(main)
