"""Writes the head of a reply (RFC 9112, section 4, and RFC 9110, section 6)."""

import time
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus

from vipsrv.errors import RequestError
from vipsrv.server.http.messages import Headers, HttpResponse
from vipsrv.server.http.refusals import MethodNotAllowed
from vipsrv.server.http.routes import Problem, Route

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

LAST_CHUNK = b"0\r\n\r\n"

_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {
    460: "Checksum Mismatch",
    499: "Client Closed Request",
}
_WITHOUT_CONTENT = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})

_UNAUTHORIZED = 401


class _Clock:
    """The value of ``Date``, made once a second."""

    second = 0
    text = ""

    def now(self) -> str:
        second = int(time.time())
        if second != self.second:
            self.second = second
            self.text = formatdate(second, usegmt=True)
        return self.text


_clock = _Clock()


def pack_response(
    response: HttpResponse, more: Headers = (), *, connection: str | None, head_only: bool
) -> bytes:
    """Return the bytes before ``response.result``: the head, and ``response.body`` unless ``head_only``."""
    headers = [*response.headers, *more]
    if response.status not in _WITHOUT_CONTENT:
        headers.append(("Content-Length", str(response.content_size)))
    head = pack_head(response.status, headers, connection=connection)
    return head if head_only or not response.body else head + response.body


def pack_head(status: int, headers: Iterable[tuple[str, str]], *, connection: str | None) -> bytes:
    """Return the status line and the fields; ``connection`` is the value of that field if there is one."""
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, 'Unknown')}", f"Date: {_clock.now()}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if connection is not None:
        lines.append(f"Connection: {connection}")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise ValueError("a field of a reply has a line break in it")
    return f"{text}\r\n\r\n".encode("latin-1")


def options_of(route: Route | None, method: str) -> HttpResponse:
    """Return the reply that tells the methods of a path, of the whole server if ``route`` is ``None``.

    Raises ``MethodNotAllowed`` if the client has not asked for them.
    """
    methods = ("GET", "HEAD", "POST") if route is None else route.methods
    allow = ", ".join(methods if "OPTIONS" in methods else (*methods, "OPTIONS"))
    if method != "OPTIONS":
        raise MethodNotAllowed(f"the methods for this path are {allow}", allow)
    return HttpResponse(status=204, headers=(("Allow", allow),))


def pack_chunk(data: bytes) -> bytes:
    """Return bytes as one chunk of a reply without a known end (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def pack_problem(problem: Problem, error: RequestError) -> bytes:
    """Return a whole reply that concerns the connection, which is closed after it."""
    response = problem(error)
    more = headers_of_refusal(error, response.headers)
    return pack_response(response, more, connection="close", head_only=False)


def headers_of_refusal(error: RequestError, present: Headers) -> Headers:
    """Return the fields that HTTP asks for with a refusal, without those that are ``present``."""
    headers = []
    if error.status == _UNAUTHORIZED:
        headers.append(("WWW-Authenticate", "Bearer"))
    if error.retry_after_ms is not None:
        headers.append(("Retry-After", str(max(1, -(-error.retry_after_ms // 1000)))))
    if isinstance(error, MethodNotAllowed):
        headers.append(("Allow", error.allow))
    names = {name.lower() for name, _ in present}
    return tuple((name, value) for name, value in headers if name.lower() not in names)
