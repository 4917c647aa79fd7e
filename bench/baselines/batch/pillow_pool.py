"""Pillow in a pool of processes, as a program of its own: what many people write first."""

import argparse
import multiprocessing
import sys
from functools import partial
from pathlib import Path

import PIL
from PIL import Image, features

from bench.baselines.batch.interface import Invocation, Task

_FILES_AT_ONCE = 16


class PillowPool:
    """``Image.thumbnail`` in a process a core.

    It has the decoder of JPEG reduce the image first (draft mode). ``margin`` is the size that the decoder
    has to leave, in widths of the result: 2 is Pillow's default, and 1 is as fast as can be.
    """

    downloads = False

    def __init__(self, margin: int) -> None:
        self.name = "pillow" if margin == 2 else "pillow-fast"
        self.what = f"Image.thumbnail in a process a core, JPEGs decoded to {margin} × the result or more"
        self._margin = margin

    def missing(self) -> str | None:
        """See ``BatchProgram``: vipsrv needs Pillow, too."""
        return None

    def version(self) -> str:
        """See ``BatchProgram``."""
        return f"Pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}"

    def invocation(self, task: Task, output: Path, cores: int) -> Invocation:
        """See ``BatchProgram``."""
        settings = map(str, (task.width, task.quality, self._margin, cores))
        return Invocation([sys.executable, "-m", __name__, str(task.listing), str(output), *settings])


def resize(path: str, output: Path, width: int, quality: int, margin: int) -> None:
    """Reduce one file."""
    with Image.open(path) as image:
        high = -(-image.height * width // image.width) + 1  # only the width limits the result
        image.thumbnail((width, high), reducing_gap=margin)
        image.convert("RGB").save(output / f"{Path(path).stem}.jpg", quality=quality)


def main() -> None:
    """Reduce the files of a list."""
    parser = argparse.ArgumentParser()
    parser.add_argument("listing", type=Path)
    parser.add_argument("output", type=Path)
    for name in ("width", "quality", "margin", "processes"):
        parser.add_argument(name, type=int)
    given = parser.parse_args()
    files = given.listing.read_text().splitlines()
    one = partial(resize, output=given.output, width=given.width, quality=given.quality, margin=given.margin)
    with multiprocessing.Pool(given.processes) as pool:
        for _ in pool.imap_unordered(one, files, chunksize=_FILES_AT_ONCE):
            pass


if __name__ == "__main__":
    main()
