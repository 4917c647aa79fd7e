"""The client of HTTP that measures: a connection, and the requests for it as bytes."""

import socket

from bench.wire import Refused

_CHUNK = 64 * 1024
"""Bytes of a chunk, as curl sends them."""

_BOUNDARY = b"5f2b8c1d"


class HttpConnection:
    """A connection that lives on, with one request at a time."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close it."""
        self._sock.close()

    def request(self, data: bytes) -> bytes:
        """Send a whole request and return the content of the reply. Raises ``Refused`` and ``OSError``."""
        self._sock.sendall(data)
        received = bytearray()
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._read()
        head = bytes(received[:end]).lower()
        size = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        while len(received) < end + 4 + size:
            received += self._read()
        if not head.startswith(b"http/1.1 200 "):
            raise Refused(int(head[9:12]), bytes(received[end + 4 :]))
        return bytes(received[end + 4 :])

    def _read(self) -> bytes:
        data = self._sock.recv(1 << 18)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data


def plain(image: bytes, width: int, height: int) -> bytes:
    """Return a request whose body is the image."""
    return _head(width, height, b"Content-Length: %d" % len(image)) + image


def chunked(image: bytes, width: int, height: int) -> bytes:
    """Return a request whose body is the image in chunks."""
    pieces = [image[begin : begin + _CHUNK] for begin in range(0, len(image), _CHUNK)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return _head(width, height, b"Transfer-Encoding: chunked") + body + b"0\r\n\r\n"


def form(image: bytes, width: int, height: int) -> bytes:
    """Return a request whose body is a form with the image in it."""
    body = (
        b'--%b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n' % _BOUNDARY
        + image
        + b"\r\n--%b--\r\n" % _BOUNDARY
    )
    fields = b"Content-Type: multipart/form-data; boundary=%b\r\nContent-Length: %d" % (_BOUNDARY, len(body))
    return _head(width, height, fields) + body


def _head(width: int, height: int, fields: bytes) -> bytes:
    return (
        b"POST /resize?width=%d&height=%d HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/8.14.1\r\n"
        b"Accept: */*\r\n%b\r\n\r\n" % (width, height, fields)
    )


FORMS = {"http": plain, "chunked": chunked, "form": form}
