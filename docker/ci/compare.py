"""Compares what a server makes of files in several formats with the image that they were made of.

usage: compare.py FOLDER    in a container of the target ``full``, with a server on its default port

The folder has for each ``NAME.png`` files of other formats. ``NAME-refers.svg`` and ``NAME-refers.pdf`` refer
to files elsewhere, or name what a viewer would start, and must look like ``NAME.png`` without it. Exit
status: 1 if a result differs.
"""
# ruff: noqa: INP001, T201 -- a program that runs by itself; its output is what it saw

import io
import sys
from pathlib import Path

from PIL import Image, ImageChops, ImageStat

from vipsrv import Client

WIDTH, HEIGHT = 200, 150
MOST_DIFFERENT = 6.0
"""Mean difference of a channel, of 255, for lossy files of a gradient or a drawing."""


def difference(one: bytes, other: bytes) -> float:
    """Return the mean absolute difference of two images of the same size."""
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in (one, other)]
    return sum(ImageStat.Stat(ImageChops.difference(*images)).mean) / 3


def main(folder: Path) -> None:
    """Compare all files of ``folder``."""
    files = sorted(file for file in folder.iterdir() if file.suffix not in (".png", ".css"))
    failed = not files
    with Client() as client:
        for file in files:
            original = folder / f"{file.stem.partition('-')[0]}.png"
            wanted, got = (
                client.resize(one.read_bytes(), width=WIDTH, height=HEIGHT, format="png").data
                for one in (original, file)
            )
            found = difference(wanted, got)
            print(f"  {file.name}: differs by {found:.2f} of 255 from {original.name}")
            failed = failed or found > MOST_DIFFERENT
    sys.exit(failed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
