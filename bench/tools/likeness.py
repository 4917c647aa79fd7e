"""What ``min_ssim`` costs, and what it chooses: quality, bytes, and CPU time beside one encode.

    python -m bench.tools.likeness [FILE or FOLDER …] [--formats jpeg,webp,avif] [--likenesses 0.95,0.98]

Each image goes through the whole pipeline to ``--width`` × ``--height``, with ``min_ssim`` and then
without it at the quality that the search chose (``once``). The table has the medians over the images, and the
least and most of all. Without files it takes the drawn images.
"""

import os
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

os.environ["VIPS_CONCURRENCY"] = "1"  # read by libvips when it is loaded

import typer

from bench.tools.effort import image_paths
from vipsrv import pipeline
from vipsrv.errors import TooLarge
from vipsrv.options import Format, ResizeOptions
from vipsrv.worker_config import WorkerConfig

MOST_PIXELS = 10**9


def _run(image: bytes, options: ResizeOptions) -> tuple[float, pipeline.Output]:
    upload = pipeline.Upload.from_memory(image)
    config = WorkerConfig(max_pixels=MOST_PIXELS)
    start = time.process_time()
    (output,) = pipeline.resize(upload, (options,), config=config).outputs
    return (time.process_time() - start) * 1e3, output


def _measured(
    image: bytes, options: ResizeOptions, rounds: int
) -> tuple[float, float, pipeline.Output] | None:
    """The median CPU milliseconds with the search and without it, and the result; ``None`` if there is
    none.
    """
    try:
        runs = [_run(image, options) for _ in range(rounds)]
    except TooLarge:
        return None
    found = runs[0][1]
    once = replace(options, min_ssim=None, quality=found.info.quality)
    without = [_run(image, once)[0] for _ in range(rounds)]
    return statistics.median(milliseconds for milliseconds, _ in runs), statistics.median(without), found


def main(
    paths: Annotated[list[Path] | None, typer.Argument(help="Images, or folders of them.")] = None,
    formats: Annotated[str, typer.Option(help="Formats of the results.")] = "jpeg,webp,avif,png",
    likenesses: Annotated[str, typer.Option(help="Values of min_ssim.")] = "0.9,0.95,0.98",
    width: Annotated[int, typer.Option(help="Of the results, in pixels.")] = 800,
    height: Annotated[int, typer.Option(help="Likewise.")] = 600,
    rounds: Annotated[int, typer.Option(min=1, help="Of each; CPU time is their median.")] = 1,
) -> None:
    """Print the table."""
    pipeline.start()
    images = [path.read_bytes() for path in image_paths(paths or [])]
    print(f"{len(images)} images to {width} x {height}, whole requests, medians of {rounds} rounds")
    print(
        f"{'format':8}{'min_ssim':>9}{'CPU ms':>9}{'once':>9}{'quality':>9}{'lowest':>8}{'highest':>8}"
        f"{'KB':>8}{'least':>8}{'most':>8}{'found':>7}"
    )
    for name in formats.split(","):
        for likeness in map(float, likenesses.split(",")):
            options = ResizeOptions(
                width=width,
                height=height,
                format=Format(name),
                palette=Format(name) is Format.PNG,
                min_ssim=likeness,
            )
            measured = [_measured(image, options, rounds) for image in images]
            rows = [one for one in measured if one is not None]
            if not rows:
                print(f"{name:8}{likeness:9}  no image reaches it")
                continue
            qualities = [found.info.quality for _, _, found in rows]
            sizes = [len(found.data) / 1e3 for _, _, found in rows]
            print(
                f"{name:8}{likeness:9}{statistics.median(row[0] for row in rows):9.1f}"
                f"{statistics.median(row[1] for row in rows):9.1f}{statistics.median(qualities):9.0f}"
                f"{min(qualities):8}{max(qualities):8}{statistics.median(sizes):8.1f}"
                f"{min(sizes):8.1f}{max(sizes):8.1f}{len(rows):7}",
                flush=True,
            )


if __name__ == "__main__":
    typer.run(main)
