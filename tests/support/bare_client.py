"""A version 1 client from the table alone: a socket and `struct`, nothing of ours."""

import json
import socket
import struct
from dataclasses import dataclass
from typing import Any

SECONDS = 60.0
"""How long a test waits for a server at the most; it never waits for this long unless something is wrong."""


@dataclass(frozen=True)
class Answer:
    """What came back: a picture, or the reason for its being empty."""

    size: int
    rest: bytes

    @property
    def picture(self) -> bytes:
        assert self.size > 0, f"refused: {self.rest!r}"
        assert len(self.rest) == self.size
        return self.rest

    @property
    def error(self) -> dict[str, Any]:
        assert self.size == 0, f"a picture of {self.size} bytes"
        magic, version, kind, status, request_id, meta_size, body_size = struct.unpack(
            "!4sBBHIIQ", self.rest[:24]
        )
        assert (magic, version, kind, request_id, body_size) == (b"VIPS", 2, 0x82, 0, 0)
        assert len(self.rest) == 24 + meta_size
        meta: dict[str, Any] = json.loads(self.rest[24:])
        return {"status": status, **meta}


def header(size: int, width: int = 800, height: int = 600) -> bytes:
    return struct.pack("!III", size, width, height)


def connect(port: int, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((host, port), timeout=SECONDS)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            break
        data += part
    return bytes(data)


def read_to_end(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def read_answer(sock: socket.socket) -> Answer:
    """To end of file, as some clients do."""
    data = read_to_end(sock)
    assert len(data) >= 4, f"no answer but {data!r}"
    return Answer(struct.unpack("!I", data[:4])[0], data[4:])


def ask(port: int, image: bytes, width: int = 800, height: int = 600) -> Answer:
    """One request: header and image in one segment if they are small, the answer read to end of file."""
    with connect(port) as sock:
        sock.sendall(header(len(image), width, height) + image)
        return read_answer(sock)
