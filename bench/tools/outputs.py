"""Compare several results of one upload with as many single requests: CPU time and quality.

    python -m bench.tools.outputs [NAME] [--rounds 7]

Resizes the 12 MP JPEG to five widths, once as five outputs of one job and
once as five jobs, in one process with a worker's settings of libvips and malloc, and prints the CPU
milliseconds of both (the best of some rounds, taken in turns), their ratio, and the least PSNR between a
result of the one way and of the other.
"""

import math
import os
import sys
import time
from collections.abc import Callable
from typing import Annotated

import pyvips
import typer

from bench.arguments import known_image
from bench.images import image_file
from bench.measuring.process_group import worker_settings
from vipsrv import pipeline
from vipsrv.options import Fit, ResizeOptions
from vipsrv.worker_config import WorkerConfig

WIDTHS = (320, 640, 960, 1280, 1600)
LIMITS = WorkerConfig(max_pixels=500_000_000, max_output_pixels=50_000_000)


def main(
    name: Annotated[
        str, typer.Argument(help="An image of bench.images.", callback=known_image)
    ] = "jpeg-12mp.jpg",
    *,
    rounds: Annotated[int, typer.Option(min=1)] = 7,
) -> None:
    """Compare one job with five results with five jobs."""
    pipeline.start()
    data = image_file(name).read_bytes()
    asked = [ResizeOptions(width=width, fit=Fit.INSIDE) for width in WIDTHS]

    def run(*outputs: ResizeOptions) -> list[pipeline.Output]:
        upload = pipeline.Upload.from_memory(data)
        return list(pipeline.resize(upload, outputs, config=LIMITS).outputs)

    def together() -> list[pipeline.Output]:
        return run(*asked)

    def one_by_one() -> list[pipeline.Output]:
        return [output for options in asked for output in run(options)]

    pairs = zip(together(), one_by_one(), strict=True)
    least = min(_psnr(one.data, other.data) for one, other in pairs)
    taken = [(_milliseconds(together), _milliseconds(one_by_one)) for _ in range(rounds)]
    once, singly = min(first for first, _ in taken), min(second for _, second in taken)
    print(f"{name}: {', '.join(map(str, WIDTHS))} pixels wide")
    print(f"one job {once:.1f} ms, five jobs {singly:.1f} ms of CPU: ratio {once / singly:.3f}")
    print(f"least PSNR between the two ways: {least:.1f} dB")


def _milliseconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return (time.process_time() - started) * 1000


def _psnr(one: bytes, other: bytes) -> float:
    difference = pyvips.Image.new_from_buffer(one, "") - pyvips.Image.new_from_buffer(other, "")
    mean_square = (difference * difference).avg()
    return 10 * math.log10(255**2 / mean_square) if mean_square else math.inf


if __name__ == "__main__":
    settings = worker_settings()
    if not settings.items() <= os.environ.items():
        os.execve(  # noqa: S606 - the same program again
            sys.executable,
            [sys.executable, "-m", "bench.tools.outputs", *sys.argv[1:]],
            {**os.environ, **settings},
        )
    typer.run(main)
