"""A server that works like the one that vipsrv replaces: version 1, one thread, full decode by Pillow.

    python -m bench.baselines.original_server [--draft]

Written from the description of the protocol. With ``--draft`` a JPEG is decoded at the smallest of 1/1, 1/2,
1/4 and 1/8 that is not smaller than the target; this takes one more line.
"""

import io
import socket
import struct
import sys

from PIL import Image

from vipsrv.options import DEFAULT_QUALITY


def resized(data: bytes, width: int, height: int, *, draft: bool) -> bytes:
    """Resize an image to a JPEG of this size. Raises ``OSError`` if Pillow cannot read it."""
    image = Image.open(io.BytesIO(data))
    if draft:
        image.draft("RGB", (width, height))
    small = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    result = io.BytesIO()
    small.save(result, "JPEG", quality=DEFAULT_QUALITY)
    return result.getvalue()


def main() -> None:
    """Print the port, and serve until killed."""
    Image.MAX_IMAGE_PIXELS = None  # only our own images are sent
    draft = "--draft" in sys.argv[1:]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"listening on {listener.getsockname()[1]}", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as stream:
                size, width, height = struct.unpack("!III", stream.read(12))
                result = resized(stream.read(size), width, height, draft=draft)
                connection.sendall(struct.pack("!I", len(result)) + result)


if __name__ == "__main__":
    main()
