"""Make several sizes of one image: ``python several_sizes.py photo.jpg`` writes photo-320.webp and so on.

The image is uploaded and decoded once for all of them.
"""

import sys
from pathlib import Path

from vipsrv import Client, Fit, Format, ResizeOptions

WIDTHS = (320, 640, 1280)


def main(source: str) -> None:
    """Write the sizes beside ``source``."""
    outputs = [ResizeOptions(width=width, fit=Fit.INSIDE, format=Format.WEBP) for width in WIDTHS]
    with Client() as client:
        results = client.resize_all(source, outputs)
    path = Path(source)
    for width, image in zip(WIDTHS, results.outputs, strict=True):
        target = path.with_name(f"{path.stem}-{width}.webp")
        image.save(target)
        print(f"{target}: {image.width} x {image.height}, {len(image.data)} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
