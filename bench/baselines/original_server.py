"""The way of the server that vipsrv replaces: version 1 in one thread, everything decoded by Pillow.

    python -m bench.baselines.original_server [--draft]

Written here from the description of the protocol. With ``--draft`` a JPEG is decoded at the smallest of
1/1, 1/2, 1/4 and 1/8 that is no smaller than the target, which is one line more.
"""

import io
import socket
import struct
import sys

from PIL import Image

from vipsrv.options import DEFAULT_QUALITY


def resized(data: bytes, width: int, height: int, *, draft: bool) -> bytes:
    """A JPEG of this size. Raises ``OSError`` where Pillow cannot read the image."""
    image = Image.open(io.BytesIO(data))
    if draft:
        image.draft("RGB", (width, height))
    small = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    result = io.BytesIO()
    small.save(result, "JPEG", quality=DEFAULT_QUALITY)
    return result.getvalue()


def main() -> None:
    """Serve until killed; the port is printed once it listens."""
    Image.MAX_IMAGE_PIXELS = None  # what is sent here is known
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
