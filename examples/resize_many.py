"""Resize all images of a folder or a bucket that are not done yet: ``python resize_many.py photos thumbs``.

What became of each image is written down at the destination: run it again to go on after it was stopped, or
to do what is new. Needs the extra ``batch`` (``pip install 'vipsrv[batch]'``), and for buckets ``s3``.
"""

import sys

from vipsrv import Fit, Format, ResizeOptions
from vipsrv.batch import run

SIZES = [ResizeOptions(width=width, fit=Fit.INSIDE, format=Format.WEBP) for width in (320, 640)]


def main(source: str, destination: str) -> None:
    """Make small images of those in ``source``, and say what became of them."""
    with run(source, destination, SIZES) as rows:  # starts a server for the time that it runs
        for row in rows:  # in the order in which they end
            if row.ok:
                print(row.key, "->", ", ".join(output.key for output in row.outputs))
            else:
                print(f"{row.key}: {row.status} {row.code}: {row.message}", file=sys.stderr)
    progress = rows.progress
    print(f"{progress.done} done, {progress.failures} failed, {progress.skipped} done or failed earlier")


if __name__ == "__main__":
    main(*sys.argv[1:])
