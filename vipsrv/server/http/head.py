"""Parses the head of a request: the request line and the fields (RFC 9112, sections 2 to 6).

A head is held against one strict grammar first. httptools (llhttp) then parses it; what it would accept and
others might read differently never reaches it. What a refusal says is found out only when there is one.
"""

import re
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import unquote_to_bytes

import httptools

from vipsrv.errors import BadRequest, RequestError, TooLarge
from vipsrv.server.http.refusals import (
    ExpectationFailed,
    HeadersTooLarge,
    NotImplementedHere,
    TargetTooLong,
    VersionNotSupported,
)

MAX_REQUEST_LINE = 8 * 1024
"""Bytes; section 3 of RFC 9112 recommends at least 8,000."""

MAX_HEAD = 32 * 1024
"""Bytes of the request line and all fields."""

MAX_FIELDS = 100

MAX_DIGITS = 18
"""Digits of a Content-Length: less than 2**63."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_REQUEST_LINE = rb"%s++ [!-~]++ HTTP/[0-9]\.[0-9]" % _TOKEN
# What follows the colon: HTAB, SP, VCHAR and obs-text (RFC 9110, section 5.5).
_FIELD_LINE = rb"%s++:[\t\x20-\x7e\x80-\xff]*+" % _TOKEN

_HEAD = re.compile(rb"%s\r\n(?:%s\r\n)*+\r\n" % (_REQUEST_LINE, _FIELD_LINE))
_LINE = re.compile(_REQUEST_LINE)
_FIELD = re.compile(_FIELD_LINE)
_METHOD = re.compile(rb"%s++" % _TOKEN)
_BARE = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# RFC 3986, 3.2.2: a name or an IPv4 address, or an address in brackets, and a port.
_HOST = re.compile(
    r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~-]+)?\])(?::[0-9]{0,5})?"
)
_ABSOLUTE = re.compile(r"(?i:https?)://([^/?#]*)([^#]*)")

_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"})
_ONCE = ("host", "content-length", "transfer-encoding", "authorization", "content-type", "expect")
"""Fields that a request may have once; of others the values are joined (RFC 9110, section 5.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A request without its body; ``HttpRequest`` explains the fields that it shares.

    ``keeps_alive`` is whether the client may send another request on the connection, ``is_http_1_0`` whether
    it must be told that it may. ``continues`` is whether it waits for a 100 (Continue) before its body.
    """

    method: str
    path: str
    query: str
    fields: MappingProxyType[str, str]
    body_size: int | None
    is_http_1_0: bool
    keeps_alive: bool
    continues: bool


def parse_head(data: bytes) -> Head:
    """Parse a complete head, up to its empty line. Raises ``RequestError``."""
    if _HEAD.fullmatch(data) is None:
        raise _fault_of(data)
    parser = _Parser()
    return parser.parse(data)


def check_part(data: bytes | bytearray, since: int) -> None:
    """Check what can be checked of a head that is not complete; ``since`` is what was checked before.

    Raises ``RequestError``. Without this, whoever waits for the end of a line that will never come, because
    it speaks another protocol, would wait for a timeout.
    """
    first = data[0]
    if not _METHOD.match(data, 0, 1):
        raise BadRequest(_not_http(bytes(data[:8]), first))
    if _BARE.search(data, max(0, since - 1)) is not None:
        raise BadRequest("a line of the head does not end with CR LF")
    end = data.find(b"\r\n", 0, MAX_REQUEST_LINE + 2)
    if end < 0 and len(data) > MAX_REQUEST_LINE:
        raise TargetTooLong(f"the request line has more than {MAX_REQUEST_LINE} bytes")
    if end >= max(0, since - 1):
        _check_line(bytes(data[:end]))
    if len(data) > MAX_HEAD:
        raise HeadersTooLarge(f"the head of the request has more than {MAX_HEAD} bytes")


class _Parser:
    """Receives what httptools finds."""

    __slots__ = ("names", "target", "values")

    def __init__(self) -> None:
        self.target = b""
        self.names: list[str] = []
        self.values: list[str] = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.names.append(name.decode("ascii").lower())
        self.values.append(value.strip(b" \t").decode("latin-1"))

    def parse(self, data: bytes) -> Head:
        line = data[: data.index(b"\r\n")]
        _check_line(line)
        if line[-1] not in b"01":  # a later minor version is spoken to as 1.1 (RFC 9110, section 2.5)
            data = line[:-1] + b"1" + data[len(line) :]
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the client goes on with HTTP/1.1 if it is not told to change (RFC 9110, section 7.8)
        except httptools.HttpParserError as error:
            raise BadRequest(f"the head of the request is not valid: {error}") from None
        return self._head(parser.get_method().decode("ascii"), is_http_1_0=line.endswith(b"0"))

    def _head(self, method: str, *, is_http_1_0: bool) -> Head:
        fields = self._joined()
        connection = fields.get("connection")
        options = () if connection is None else _words(connection)
        return Head(
            method=method,
            **_target_of(method, self.target.decode("ascii"), fields, is_http_1_0=is_http_1_0),
            fields=MappingProxyType(fields),
            body_size=_body_size(fields, is_http_1_0=is_http_1_0),
            is_http_1_0=is_http_1_0,
            keeps_alive="close" not in options and (not is_http_1_0 or "keep-alive" in options),
            continues=_continues(fields, is_http_1_0=is_http_1_0),
        )

    def _joined(self) -> dict[str, str]:
        names = self.names
        if len(names) > MAX_FIELDS:
            raise HeadersTooLarge(f"the request has {len(names)} fields; {MAX_FIELDS} are allowed")
        fields = dict(zip(names, self.values, strict=True))
        if len(fields) == len(names):
            return fields
        for name in _ONCE:
            if names.count(name) > 1:
                raise BadRequest(f"{name}: the field is there more than once")
        fields = {}
        for name, value in zip(names, self.values, strict=True):
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        return fields


def _target_of(method: str, target: str, fields: dict[str, str], *, is_http_1_0: bool) -> dict[str, str]:
    """Return path and query (RFC 9112, section 3.2). Raises ``BadRequest``."""
    host = fields.get("host")
    if host is None and not is_http_1_0:
        raise BadRequest("host: the field is missing, which HTTP/1.1 requires")
    if host is not None and not _HOST.fullmatch(host):
        raise BadRequest("host: is not a name or an address with or without a port")
    if target.startswith("/"):
        rest = target
    elif target == "*":
        if method != "OPTIONS":
            raise BadRequest("the target * is for OPTIONS only")
        return {"path": "*", "query": ""}
    else:
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None or not absolute[1] or not _HOST.fullmatch(absolute[1]):
            raise BadRequest("the target of the request is neither a path nor an http or https address")
        rest = absolute[2]
        if not rest.startswith("/"):
            rest = f"/{rest}"
    return _split(rest)


def _split(rest: str) -> dict[str, str]:
    """Return path and query of a target without an authority. Raises ``BadRequest``."""
    path, _, query = rest.partition("?")
    if "#" in rest or _BAD_ESCAPE.search(rest):
        raise BadRequest("the target of the request has a fragment, or a % without two hexadecimal digits")
    if "%" in path:
        decoded = unquote_to_bytes(path)
        try:
            path = decoded.decode("utf-8")
        except UnicodeDecodeError:
            raise BadRequest("the path is not UTF-8") from None
        if any(char < " " or char == "\x7f" for char in path):
            raise BadRequest("the path has control characters")
    return {"path": path, "query": query}


def _body_size(fields: dict[str, str], *, is_http_1_0: bool) -> int | None:
    """Return the body's size, ``None`` if it is chunked (RFC 9112, section 6). Raises ``RequestError``."""
    coding, length = fields.get("transfer-encoding"), fields.get("content-length")
    if coding is not None:
        if length is not None:
            raise BadRequest("the request has both Content-Length and Transfer-Encoding")
        if is_http_1_0:
            raise BadRequest("transfer-encoding: HTTP/1.0 does not have it")
        if coding.lower() != "chunked":
            raise NotImplementedHere("transfer-encoding: only chunked is supported")
        return None
    if length is None:
        return 0
    # Not `isdigit`, which takes other digits than those of ASCII.
    if not length.isascii() or not length.isdigit():
        raise BadRequest("content-length: is not a number")
    if len(length) > MAX_DIGITS:
        raise TooLarge(f"content-length: has more than {MAX_DIGITS} digits")
    return int(length)


def _continues(fields: dict[str, str], *, is_http_1_0: bool) -> bool:
    """Whether the client waits for a 100 (RFC 9110, section 10.1.1). Raises ``ExpectationFailed``."""
    expected = fields.get("expect")
    if expected is None or is_http_1_0:
        return False
    if expected.lower() != "100-continue":
        raise ExpectationFailed("expect: only 100-continue can be met")
    return True


def _words(value: str) -> tuple[str, ...]:
    return tuple(word.strip(" \t").lower() for word in value.split(","))


def _check_line(line: bytes) -> None:
    """Raise ``RequestError`` if a request line without its end is not valid."""
    if len(line) > MAX_REQUEST_LINE:
        raise TargetTooLong(f"the request line has more than {MAX_REQUEST_LINE} bytes")
    if not _LINE.fullmatch(line):
        if _METHOD.fullmatch(line.partition(b" ")[0]) and line.count(b" ") == 1:
            raise BadRequest("the request line has no version: HTTP/0.9 is not spoken here")
        raise BadRequest("the request line is not a method, a target and a version, with one space between")
    if line[-3:-2] != b"1":
        raise VersionNotSupported(
            "this server speaks HTTP/1.1 and 1.0; HTTP/2 and HTTP/3 are the work of a proxy in front of it"
        )
    method = line[: line.index(b" ")]
    if method.decode("ascii") not in _KNOWN_METHODS:
        raise NotImplementedHere("the method is unknown here")


def _fault_of(data: bytes) -> RequestError:
    """Return what is wrong with a head that does not follow the grammar."""
    try:
        check_part(data, 0)
    except RequestError as error:
        return error
    for line in data.split(b"\r\n")[1:-2]:
        if not _FIELD.fullmatch(line):
            return BadRequest(_fault_of_field(line))
    return BadRequest("the head of the request is not valid")


def _fault_of_field(line: bytes) -> str:
    if line[:1] in (b" ", b"\t"):
        return "a field continues on a second line (obs-fold, RFC 9112, section 5.2)"
    name, colon, _ = line.partition(b":")
    if not colon:
        return "a line of the head has no colon"
    if name.rstrip(b" \t") != name:
        return "there is a space between the name of a field and its colon"
    if not _METHOD.fullmatch(name):
        return "the name of a field has characters that it must not have"
    return "the value of a field has control characters"


def _not_http(beginning: bytes, first: int) -> str:
    if beginning.startswith(b"\0\0\0\0VIPS"):
        return "this address takes HTTP; the client speaks the binary protocol of vipsrv"
    if first == 0x16:  # noqa: PLR2004 - a handshake of TLS (RFC 8446, section 5.1)
        return "this address takes HTTP without TLS; the client speaks TLS"
    return "this is not a request of HTTP"
