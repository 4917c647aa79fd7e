"""The client of the benchmarks: requests of versions 1 and 2 over bare, blocking sockets.

It adds as little CPU time as a client in Python can, checks nothing and retries nothing. The load generator
waits for many sockets at once and so reads replies in its own event loop (``bench.load.connection``); the
bytes of its requests come from here, too.
"""

import json
import socket
import ssl
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vipsrv.errors import ProtocolError
from vipsrv.protocol import FIRST_ERROR_STATUS, HEADER, V1_REPLY, V1_REQUEST, Header, Kind, pack_message

TIMEOUT_SECONDS = 120.0
_READ_SIZE = 1 << 20


class Refused(Exception):
    """The server answered with an error. ``status`` and ``code`` are those of the protocol."""

    def __init__(self, status: int, meta: bytes) -> None:
        try:
            self.code = str(json.loads(meta)["code"])
        except (ValueError, TypeError, KeyError):
            self.code = ""
        self.status = status
        super().__init__(f"{status} {meta.decode(errors='replace')}")


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of version 2 as it came, an error or not."""

    status: int
    meta: bytes
    body: bytearray


def version_1_head(image_size: int, width: int, height: int) -> bytes:
    """The bytes of a version 1 request that precede its image."""
    return V1_REQUEST.pack(image_size, width, height)


def resize_head(request_id: int, image_size: int, width: int, height: int, **options: Any) -> bytes:
    """The bytes of a version 2 RESIZE that precede its image."""
    meta = {"width": width, "height": height, **options}
    return pack_message(Kind.RESIZE, request_id, meta, body_size=image_size)


def resize_once(port: int, image: bytes, width: int = 800, height: int = 600) -> bytes:
    """Resize an image by one request of version 1. Raises ``Refused`` and ``OSError``."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as sock:
        sock.sendall(version_1_head(len(image), width, height) + image)
        return _receive_version_1(sock)


def resize_file_once(
    port: int, path: Path, width: int = 800, height: int = 600, *, timeout: float = TIMEOUT_SECONDS
) -> bytes:
    """Resize a file by one request of version 1; ``sendfile`` keeps the client's CPU time near zero.

    ``timeout`` is in seconds. Raises ``Refused`` and ``OSError``.
    """
    with path.open("rb") as file, socket.create_connection(("127.0.0.1", port), timeout=timeout) as sock:
        sock.sendall(version_1_head(path.stat().st_size, width, height))
        sock.sendfile(file)
        return _receive_version_1(sock)


def _receive_version_1(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(_READ_SIZE):
        parts.append(part)
    answer = b"".join(parts)
    if len(answer) < V1_REPLY.size:
        raise ConnectionError(f"the server closed after {len(answer)} bytes of a reply")
    (size,) = V1_REPLY.unpack_from(answer)
    if not size:
        raise Refused(_status_of(answer), answer[HEADER.size :])
    if len(answer) != V1_REPLY.size + size:
        raise ConnectionError(f"{len(answer) - V1_REPLY.size} bytes of a result of {size}")
    return answer[V1_REPLY.size :]


def _status_of(answer: bytes) -> int:
    """The status of a version 1 error reply: its size of zero is the first field of a version 2 header."""
    try:
        return Header.unpack(answer[: HEADER.size]).status
    except (ProtocolError, struct.error):
        return 0


class Connection:
    """One connection of version 2. ``receive`` takes replies in the order in which they arrive.

    ``source`` is the address to connect from, such as 127.0.0.7 for a client of its own. ``tls`` is for a
    listener with TLS, and ``session`` one of its sessions to resume.
    """

    def __init__(
        self,
        port: int,
        host: str = "127.0.0.1",
        *,
        timeout: float = TIMEOUT_SECONDS,
        source: str | None = None,
        tls: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        origin = None if source is None else (source, 0)
        self._sock = socket.create_connection((host, port), timeout=timeout, source_address=origin)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._joins = tls is not None
        if tls is not None:
            self._sock = tls.wrap_socket(self._sock, server_hostname=host, session=session)
        self._next_id = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session of TLS, which another connection may resume once a reply has been received."""
        return self._sock.session if isinstance(self._sock, ssl.SSLSocket) else None

    @property
    def resumed(self) -> bool:
        """Whether it has resumed a session."""
        return isinstance(self._sock, ssl.SSLSocket) and bool(self._sock.session_reused)

    @property
    def is_open(self) -> bool:
        """Whether the server has kept an idle connection open. The connection cannot be used afterwards."""
        self._sock.setblocking(False)
        try:
            return bool(self._sock.recv(1))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def resize(self, image: bytes, width: int = 800, height: int = 600) -> bytes:
        """Resize an image. Raises ``Refused`` and ``OSError``."""
        self.send(image, width, height)
        return self.receive()

    def send(self, image: bytes, width: int = 800, height: int = 600, **options: Any) -> None:
        """Send a RESIZE without waiting for its reply. Raises ``OSError``."""
        self._send(resize_head(self._next_id, len(image), width, height, **options), image)

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are. Raises ``OSError``."""
        self._sock.sendall(data)

    def receive(self) -> bytes:
        """Return the body of the next reply. Raises ``Refused`` and ``OSError``."""
        reply = self.receive_reply()
        if reply.status >= FIRST_ERROR_STATUS:
            raise Refused(reply.status, bytes(reply.meta))
        return bytes(reply.body)

    def request(self, kind: Kind, meta: dict[str, Any] | None = None, body: bytes = b"") -> Reply:
        """Send any request and return its reply. Raises ``OSError``."""
        self._send(pack_message(kind, self._next_id, meta or {}, body_size=len(body)), body)
        return self.receive_reply()

    def receive_reply(self) -> Reply:
        """Return the next reply. Raises ``OSError``."""
        header = Header.unpack(self._exactly(HEADER.size))
        meta = self._exactly(header.meta_size)
        return Reply(header.status, bytes(meta), self._exactly(header.body_size))

    def _send(self, head: bytes, body: bytes) -> None:
        self._next_id += 1
        if self._joins:  # a socket of TLS has no sendmsg
            self._sock.sendall(head + body)
            return
        sent = self._sock.sendmsg([head, body])
        if sent < len(head):
            self._sock.sendall(head[sent:])
        self._sock.sendall(memoryview(body)[max(0, sent - len(head)) :])

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            count = self._sock.recv_into(view)
            if not count:
                raise ConnectionError(f"the server closed {len(view)} bytes before the end of a reply")
            view = view[count:]
        return data
