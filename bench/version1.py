"""One request of version 1 over a bare socket: the least a client can cost."""

import socket
import struct


class Refused(Exception):
    """The server answered with a reason instead of a picture."""


def ask(port: int, image: bytes, width: int = 800, height: int = 600) -> bytes:
    """The resized picture. Raises ``Refused`` and ``OSError``."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as sock:
        sock.sendall(struct.pack("!III", len(image), width, height) + image)
        parts = []
        while part := sock.recv(1 << 20):
            parts.append(part)
    answer = b"".join(parts)
    (size,) = struct.unpack("!I", answer[:4])
    if not size:
        raise Refused(answer[28:].decode())
    if len(answer) != 4 + size:
        raise ConnectionError(f"{len(answer) - 4} bytes of a result of {size}")
    return answer[4:]
