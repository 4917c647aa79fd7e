"""Compare the efforts of the WebP encoder by time, bytes and SSIM.

    python -m bench.tools.webp_effort [FILE …] [--rounds 3]

Each image is reduced to 800 pixels across by a full decode and Lanczos, then encoded. All figures are
relative to effort 4 at quality 85, the server's default: CPU time and bytes as ratios, the mean over the
images; SSIM as a difference, the mean and the worst. An effort with a lower quality shows what its bytes buy.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from types import MappingProxyType
from typing import Annotated, Any

import pyvips
import typer

from bench.image_quality import decode, reference, ssim
from bench.images import image_file
from bench.tools.old_and_new import target

DRAWN = ("jpeg-1.9mp.jpg", "jpeg-12mp.jpg", "webp-6mp.webp")

DEFAULT = "effort 4, quality 85"

VARIANTS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        DEFAULT: {"effort": 4, "Q": 85},
        "effort 4, quality 83": {"effort": 4, "Q": 83},
        "effort 4, quality 81": {"effort": 4, "Q": 81},
        "effort 0, quality 83": {"effort": 0, "Q": 83},
        "effort 1, quality 83": {"effort": 1, "Q": 83},
        "effort 2, quality 85": {"effort": 2, "Q": 85},
        "effort 2, quality 83": {"effort": 2, "Q": 83},
        "effort 3, quality 85": {"effort": 3, "Q": 85},
        "effort 5, quality 85": {"effort": 5, "Q": 85},
        "effort 6, quality 85": {"effort": 6, "Q": 85},
        "effort 4, quality 85, smart_subsample": {"effort": 4, "Q": 85, "smart_subsample": True},
        "effort 4, quality 85, preset photo": {"effort": 4, "Q": 85, "preset": "photo"},
    }
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One image by one variant."""

    seconds: float
    size: int
    ssim: float


def encode_all(path: Path, rounds: int) -> dict[str, Encoded]:
    """Encode the file by each variant; the time is the least of the rounds."""
    pixels = reference(path, *target(path))
    height, width, bands = pixels.shape
    image = pyvips.Image.new_from_memory(pixels.tobytes(), width, height, bands, "uchar")
    image = image.copy(interpretation="srgb")
    seconds: dict[str, float] = {}
    results: dict[str, bytes] = {}
    for _ in range(rounds):
        for name, arguments in VARIANTS.items():
            start = time.process_time()
            results[name] = image.webpsave_buffer(keep="none", **arguments)
            took = time.process_time() - start
            seconds[name] = min(took, seconds.get(name, took))
    return {
        name: Encoded(seconds[name], len(data), ssim(decode(data), pixels)) for name, data in results.items()
    }


def main(
    files: Annotated[list[Path] | None, typer.Argument(exists=True, help="[default: drawn images]")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Print a table with a line for each variant."""
    pyvips.concurrency_set(1)
    images = [encode_all(path, rounds) for path in files or map(image_file, DRAWN)]
    print("| | CPU | bytes | SSIM, mean | SSIM, worst |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in VARIANTS:
        pairs = [(encoded[name], encoded[DEFAULT]) for encoded in images]
        differences = [one.ssim - base.ssim for one, base in pairs]
        print(
            f"| {name} | {mean(one.seconds / base.seconds for one, base in pairs):.2f} "
            f"| {mean(one.size / base.size for one, base in pairs):.3f} "
            f"| {mean(differences):+.4f} | {min(differences):+.4f} |"
        )


if __name__ == "__main__":
    typer.run(main)
