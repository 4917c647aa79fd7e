"""Resize one image file: ``python resize_one.py photo.jpg small.jpg``."""

import os
import sys
from pathlib import Path

from vipsrv import Client

HOST = os.environ.get("VIPSRV_HOST", "127.0.0.1")
PORT = int(os.environ.get("VIPSRV_PORT", "65432"))


def main(source: str, target: str) -> None:
    """Write ``source`` to ``target``, at most 800 pixels wide and 600 high."""
    with Client(HOST, PORT) as client:
        result = client.resize(source, width=800, height=600, fit="inside")
    Path(target).write_bytes(result.data)
    print(f"{target}: {result.width} x {result.height}, {result.ratio:.1f} times smaller")


if __name__ == "__main__":
    main(*sys.argv[1:])
