"""Resize one image file: ``python resize_one.py photo.jpg small.jpg``."""

import sys

from vipsrv import Client


def main(source: str, target: str) -> None:
    """Write ``source`` to ``target``, at most 800 pixels wide and 600 high."""
    with Client() as client:
        result = client.resize(source, width=800, height=600, fit="inside")
        result.save(target)
    print(f"{target}: {result.width} x {result.height}, {result.ratio:.1f} times smaller")


if __name__ == "__main__":
    main(*sys.argv[1:])
