"""Compare the CPU time of a request over HTTP with that of the same request over the binary protocol.

    python -m bench.tools.http [--rounds 15] [--requests 60] [--workers 1]

One server listens for both. One connection of each takes turns, so that both meet the same machine and the
same workers. CPU is user and system time of all processes of the server, in ms a request; what HTTP adds is
the median of the differences of the rounds. One row has the body in chunks, and one in a form.
"""

import socket
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Annotated

import typer

from bench.images import image_file
from bench.measuring.server import Server
from bench.tools.gateway import UPLOADS
from bench.wire import Connection

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
        """Send a whole request and return the content of the reply. Raises ``SystemExit`` for a refusal."""
        self._sock.sendall(data)
        received = bytearray()
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._read()
        head = bytes(received[:end]).lower()
        size = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        while len(received) < end + 4 + size:
            received += self._read()
        if not head.startswith(b"http/1.1 200 "):
            raise SystemExit(f"the server replied: {bytes(received[:500])!r}")
        return bytes(received[end + 4 :])

    def _read(self) -> bytes:
        data = self._sock.recv(1 << 18)
        if not data:
            raise SystemExit("the server closed the connection")
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


def cpu_of(server: Server, send: Callable[[], object], requests: int) -> float:
    """Return the milliseconds of CPU of a request."""
    before = sum(server.cpu_seconds())
    for _ in range(requests):
        send()
    return (sum(server.cpu_seconds()) - before) / requests * 1e3


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 15,
    requests: Annotated[int, typer.Option(min=1, help="Requests of each kind in a round.")] = 60,
    workers: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Print what each way to send an image over HTTP adds to a request, for each size of the image."""
    listeners = ("--listen", "127.0.0.1:0", "--listen", "http://127.0.0.1:0")
    with (
        Server("--workers", str(workers), "--log-level", "warning", *listeners) as server,
        ExitStack() as stack,
    ):
        binary = stack.enter_context(Connection(server.ports[0]))
        http = HttpConnection(server.ports[1])
        stack.callback(http.close)
        for name, (width, height) in UPLOADS.items():
            image = image_file(name).read_bytes()
            sides: dict[str, Callable[[], object]] = {
                "binary": partial(binary.resize, image, width, height),
                **{way: partial(http.request, make(image, width, height)) for way, make in FORMS.items()},
            }
            measured: dict[str, list[float]] = {way: [] for way in sides}
            for number in range(rounds + 1):
                order = list(sides) if number % 2 else list(reversed(sides))
                for way in order:
                    value = cpu_of(server, sides[way], requests)
                    if number:  # the first round is a warm-up
                        measured[way].append(value)
            base = measured.pop("binary")
            print(f"{name}, {len(image) / 1e6:.2f} MB: binary {statistics.median(base):.3f} ms")
            for way, values in measured.items():
                added = statistics.median(value - other for value, other in zip(values, base, strict=True))
                print(f"    {way:8} {statistics.median(values):.3f} ms, {added:+.3f} ms")


if __name__ == "__main__":
    typer.run(main)
