"""Speaks to a running vipsrv with sockets and `struct` alone, as a client in another language would.

usage: probe.py serve-check HOST PORT      requests of both protocol versions; exit 1 if one is wrong
       probe.py sample FILE                writes a PNG
       probe.py jpeg-is FILE WIDTH HEIGHT  exit 1 if the file is not a JPEG of that size

Nothing of vipsrv is imported: the wire is taken from the tables of vipsrv/protocol/README.md.
"""
# ruff: noqa: INP001, T201 -- a program beside a script, in no package; its output is what it saw

import json
import random
import socket
import struct
import sys
import zlib
from pathlib import Path

TIMEOUT = 30  # seconds for any one wait on the socket
HEADER_V2 = struct.Struct("!I4sBBHIIQ")
PING = 6
# The markers of a JPEG frame header, SOF0 to SOF15 (ITU-T T.81, table B.1); DHT, JPG and DAC lie between.
FRAME_HEADERS = frozenset(range(0xFFC0, 0xFFD0)) - {0xFFC4, 0xFFC8, 0xFFCC}


def png(width: int, height: int, channels: int = 3, *, noise: bool = False) -> bytes:
    """A PNG of 8 bits per channel: a gradient, or noise, which no compressor makes smaller.

    Written from the PNG specification (W3C, third edition), sections 5 and 11.2.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

    stride = width * channels
    source = random.Random(1)  # noqa: S311 -- noise, not a secret
    gradient = bytes(x * 255 // stride for x in range(stride))
    rows = (source.randbytes(stride) if noise else gradient for _ in range(height))
    colour_type = {1: 0, 3: 2, 4: 6}[channels]
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack("!IIBBBBB", width, height, 8, colour_type, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows), 1))
        + chunk(b"IEND", b"")
    )


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels, from the frame header (ITU-T T.81, B.2.2).

    Raises ValueError if the data is not a whole JPEG.
    """
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        raise ValueError(f"not a whole JPEG: {data[:2].hex()} … {data[-2:].hex()}")
    at = 2
    while at + 9 <= len(data):
        marker, length = struct.unpack_from("!HH", data, at)
        if marker in FRAME_HEADERS:
            height, width = struct.unpack_from("!HH", data, at + 5)
            return width, height
        at += 2 + length
    raise ValueError("a JPEG without a frame header")


def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes. Raises EOFError if the connection ends before."""
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError(f"connection closed after {len(data)} of {size} bytes")
        data += piece
    return bytes(data)


def receive_header_v2(connection: socket.socket) -> tuple[int, int, int, int, int]:
    """Kind, status, request id, meta size and body size. Raises ValueError on anything else."""
    zero, magic, version, *rest = HEADER_V2.unpack(receive(connection, HEADER_V2.size))
    if (zero, magic, version) != (0, b"VIPS", 2):
        raise ValueError(f"not a version 2 header: {zero} {magic!r} {version}")
    kind, status, request_id, meta_size, body_size = rest
    return kind, status, request_id, meta_size, body_size


def resize_v1(address: tuple[str, int], image: bytes, width: int, height: int) -> bytes:
    """The result of one version 1 request. Raises ValueError on a zero size or trailing bytes."""
    with socket.create_connection(address, TIMEOUT) as connection:
        connection.sendall(struct.pack("!III", len(image), width, height) + image)
        (size,) = struct.unpack("!I", receive(connection, 4))
        if size == 0:
            raise ValueError("the server refused the image")
        result = receive(connection, size)
        if connection.recv(1):
            raise ValueError("bytes after the result")
    return result


def refusal_v1(address: tuple[str, int], image: bytes) -> tuple[int, str]:
    """Status and message of the server's refusal. Raises ValueError if it does not refuse."""
    with socket.create_connection(address, TIMEOUT) as connection:
        connection.sendall(struct.pack("!III", len(image), 80, 60) + image)
        _kind, status, _request_id, meta_size, _body_size = receive_header_v2(connection)
        meta = json.loads(receive(connection, meta_size))
    return status, meta["message"]


def ping_v2(address: tuple[str, int]) -> tuple[int, int, int]:
    """Kind, status and request id of the reply to a PING with request id 7."""
    with socket.create_connection(address, TIMEOUT) as connection:
        connection.sendall(HEADER_V2.pack(0, b"VIPS", 2, PING, 0, 7, 0, 0))
        kind, status, request_id, _meta_size, _body_size = receive_header_v2(connection)
    return kind, status, request_id


def expect(what: str, got: object, wanted: object) -> None:
    """End the program with exit status 1 if they differ."""
    if got != wanted:
        sys.exit(f"{what}: {got!r} instead of {wanted!r}")
    print(f"  {what}: {got!r}")


def serve_check(address: tuple[str, int]) -> None:
    """Requests of both versions to a server at `address`. Ends the program if a reply is wrong."""
    images = {
        "640 x 480 RGB": (png(640, 480), 200, 150),
        "301 x 77 RGBA, enlarged": (png(301, 77, 4), 400, 300),
        "3000 x 2200 noise": (png(3000, 2200, noise=True), 800, 600),  # 20 MB: spooled to disk
        "1 x 1 grey": (png(1, 1, 1), 1, 1),
    }
    for name, (image, width, height) in images.items():
        result = resize_v1(address, image, width, height)
        expect(f"version 1, {name}, {len(image)} bytes", jpeg_size(result), (width, height))
    status, message = refusal_v1(address, b"this is not an image")
    expect("version 1, not an image, status", status, 415)
    print(f"  the reason: {message}")
    expect("version 2, PING", ping_v2(address), (PING | 0x80, 200, 7))


def main(arguments: list[str]) -> None:
    """Does what the usage above says."""
    match arguments:
        case ["serve-check", host, port]:
            serve_check((host, int(port)))
        case ["sample", file]:
            Path(file).write_bytes(png(320, 240))
        case ["jpeg-is", file, width, height]:
            expect(file, jpeg_size(Path(file).read_bytes()), (int(width), int(height)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (EOFError, OSError, ValueError) as error:
        sys.exit(f"probe.py: {error!r}")
