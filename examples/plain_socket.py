"""A client of 25 lines without vipsrv: version 1 of the protocol over a plain socket."""

import os
import socket
import struct
import sys
from pathlib import Path


def resize(image: bytes, width: int, height: int, server: tuple[str, int]) -> bytes:
    """Return the image as a JPEG of exactly ``width`` x ``height`` pixels. Raises ``ValueError``."""
    with socket.create_connection(server) as connection, connection.makefile("rb") as reply:
        connection.sendall(struct.pack("!III", len(image), width, height) + image)
        (size,) = struct.unpack("!I", reply.read(4))
        data = reply.read()  # the server closes the connection after its reply
    if size == 0:
        raise ValueError(f"refused: {data[24:].decode()}")  # a header, then the reason as JSON
    if len(data) != size:
        raise ConnectionError(f"the reply ended after {len(data)} of {size} bytes")
    return data


if __name__ == "__main__":
    host, port = os.environ.get("VIPSRV_HOST", "127.0.0.1"), int(os.environ.get("VIPSRV_PORT", "65432"))
    Path(sys.argv[2]).write_bytes(resize(Path(sys.argv[1]).read_bytes(), 800, 600, (host, port)))
