"""An HTTP client in a closed loop over one persistent connection.

It sends bytes that were made once and reads replies from a plain socket, so that it takes as little CPU time
as the client of vipsrv's own protocol (``bench.wire``). It connects again where a server closes the
connection.
"""

import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.measuring.process_group import member_number

TIMEOUT_SECONDS = 120.0
_READ_SIZE = 1 << 18
_END_OF_HEAD = b"\r\n\r\n"
_OK = 200
_BOUNDARY = "vipsrv-bench-boundary"


def prepare(
    ports: Sequence[int], path: str, image: str | None, form_field: str | None = None
) -> Callable[[], bytes]:
    """Return the function that gets this path, or posts the image to it.

    ``{client}`` in the path stands for the number of the client.

    With ``form_field`` the image is posted as that field of a form. The function raises ``RuntimeError`` for
    any status but 200, and ``OSError``.
    """
    port = ports[member_number() % len(ports)]
    connection = HttpConnection(port)
    path = path.replace("{client}", str(member_number()))
    request = request_bytes(port, path, Path(image) if image else None, form_field)
    return lambda: connection.ask(request)


def request_bytes(port: int, path: str, image: Path | None, form_field: str | None) -> bytes:
    """The bytes of a whole request."""
    lines = [f"{'POST' if image else 'GET'} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    body = b""
    if image:
        kind, body = f"image/{_subtype(image)}", image.read_bytes()
        if form_field:
            head = (
                f"--{_BOUNDARY}\r\n"
                f'Content-Disposition: form-data; name="{form_field}"; filename="{image.name}"\r\n'
                f"Content-Type: {kind}\r\n\r\n"
            )
            body = head.encode() + body + f"\r\n--{_BOUNDARY}--\r\n".encode()
            kind = f"multipart/form-data; boundary={_BOUNDARY}"
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + _END_OF_HEAD + body


def _subtype(image: Path) -> str:
    suffix = image.suffix.removeprefix(".")
    return {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)


class HttpConnection:
    """A connection to a port of 127.0.0.1, made with the first request."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._read = bytearray()

    def ask(self, request: bytes) -> bytes:
        """Send a request and return the body of the reply. Raises ``RuntimeError`` and ``OSError``."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=TIMEOUT_SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._socket.sendall(request)
        status, fields = self._head()
        if fields.get("transfer-encoding", "").lower() == "chunked":
            body = self._chunks()
        elif "content-length" in fields:
            body = self._exactly(int(fields["content-length"]))
        else:
            body = self._rest()
        if fields.get("connection", "").lower() == "close":
            self.close()
        if status != _OK:
            raise RuntimeError(f"the server answered with status {status}: {body[:500]!r}")
        if not body:
            raise RuntimeError("the server answered without a body")
        return body

    def close(self) -> None:
        """Close the socket, if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _head(self) -> tuple[int, dict[str, str]]:
        first, *lines = self._up_to(_END_OF_HEAD).decode("latin-1").split("\r\n")
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        return int(first.split(" ", 2)[1]), {name.lower(): text.strip() for name, text in fields.items()}

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self._up_to(b"\r\n").split(b";")[0], 16):
            parts.append(self._exactly(size))
            self._exactly(2)
        while self._up_to(b"\r\n"):  # trailer fields, then an empty line
            continue
        return b"".join(parts)

    def _up_to(self, end: bytes) -> bytes:
        while (place := self._read.find(end)) < 0:
            self._more()
        found = bytes(self._read[:place])
        del self._read[: place + len(end)]
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            self._more()
        found = bytes(self._read[:size])
        del self._read[:size]
        return found

    def _rest(self) -> bytes:
        while self._more(end=True):
            continue
        self.close()
        found, self._read = bytes(self._read), bytearray()
        return found

    def _more(self, *, end: bool = False) -> bool:
        assert self._socket is not None
        data = self._socket.recv(_READ_SIZE)
        if not data and not end:
            self.close()
            raise ConnectionError("the server closed the connection before the end of its reply")
        self._read += data
        return bool(data)
