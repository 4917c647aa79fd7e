"""A version 1 client written from the specification's table: a socket and `struct`, no code of vipsrv."""

import json
import socket
import struct
from dataclasses import dataclass
from typing import Any

SECONDS = 60.0
"""The longest that a test waits for a server. It only waits this long if something is wrong."""


@dataclass(frozen=True)
class Answer:
    """What came back: a result, or the reason why there is none."""

    size: int
    rest: bytes

    @property
    def result(self) -> bytes:
        assert self.size > 0, f"refused: {self.rest!r}"
        assert len(self.rest) == self.size
        return self.rest

    @property
    def error(self) -> dict[str, Any]:
        assert self.size == 0, f"a result of {self.size} bytes"
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
