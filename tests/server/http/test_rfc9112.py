"""What RFC 9112 and RFC 9110 ask of a server, case by case over real sockets, with the section beside each.

A refused request is answered and the connection is closed: whatever follows is not taken for a request. Every
case that could hide a second request has one, for ``/hidden``.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.server.http.serving import HOST, HttpServer, client_of, get, serving
from vipsrv.server.http.chunked import MAX_LINE, MAX_TRAILERS
from vipsrv.server.http.head import MAX_FIELDS, MAX_HEAD, MAX_REQUEST_LINE

MOST_IN_PIECES = 5000
"""Bytes of a case that is also sent byte by byte; more would take too long."""

HIDDEN = get(b"/hidden")
POST = b"POST /resize?width=8 HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
PAGE = b"GET /page HTTP/1.1\r\n"

# Section, what is wrong, the bytes, the status.
REFUSED = [
    # The request line (RFC 9112)
    ("2.2", "bare LF after the request line", b"GET /page HTTP/1.1\n" + HOST + b"\r\n", 400),
    ("2.2", "bare LF everywhere", b"GET /page HTTP/1.1\nHost: a\n\n", 400),
    ("2.2", "bare CR in the request line", b"GET /page\rHTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("2.2", "bare CR in a value", PAGE + HOST + b"X: a\rb\r\n\r\n", 400),
    ("2.2", "bare LF in a value", PAGE + HOST + b"X: a\nContent-Length: 5\r\n\r\n" + HIDDEN, 400),
    ("2.2", "LF before CR", b"GET /page HTTP/1.1\n\r" + HOST + b"\r\n", 400),
    ("2.2", "space before the first field", PAGE + b" " + HOST + b"\r\n", 400),
    ("2.2", "empty lines without end", b"\r\n" * 50 + PAGE + HOST + b"\r\n", 400),
    ("3", "two spaces", b"GET  /page HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("3", "a tab", b"GET\t/page HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("3", "space at the end", b"GET /page HTTP/1.1 \r\n" + HOST + b"\r\n", 400),
    ("3", "space before the method", b" GET /page HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("3", "space in the target", b"GET /pa ge HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("3", "vertical tab", b"GET /page\x0bHTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("3", "too long", b"GET /" + b"a" * MAX_REQUEST_LINE + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    ("3", "too long, without an end", b"GET /" + b"a" * MAX_REQUEST_LINE, 414),
    ("3.1", "no token", b"G(T /page HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("3.1", "no method", b" /page HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("3.1", "lower case is another method", b"get /page HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    ("3.1", "unknown method", b"BREW /page HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    ("3.1", "CONNECT", b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    ("3.2", "no Host", PAGE + b"\r\n", 400),
    ("3.2", "two Hosts", PAGE + HOST + HOST + b"\r\n", 400),
    ("3.2", "two Hosts in HTTP/1.0", b"GET /page HTTP/1.0\r\n" + HOST + HOST + b"\r\n", 400),
    ("3.2", "Host with a path", PAGE + b"Host: a/b\r\n\r\n", 400),
    ("3.2", "Host with a user", PAGE + b"Host: me@a\r\n\r\n", 400),
    ("3.2", "Host with two values", PAGE + b"Host: a, b\r\n\r\n", 400),
    ("3.2", "Host with a space", PAGE + b"Host: a b\r\n\r\n", 400),
    ("3.2", "Host with a bad port", PAGE + b"Host: a:b\r\n\r\n", 400),
    ("3.2.1", "relative path", b"GET page HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("3.2.1", "fragment", b"GET /page#x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("3.2.1", "bad escape", b"GET /pa%zge HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("3.2.1", "escaped NUL", b"GET /page%00 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("3.2.1", "escaped line break", b"GET /page%0d%0a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("3.2.1", "escaped bytes that are no UTF-8", b"GET /page%ff HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("3.2.1", "raw bytes beyond ASCII", b"GET /p\xc3\xa4ge HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("3.2.2", "absolute form without a host", b"GET http:///page HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("3.2.2", "absolute form with a user", b"GET http://me@a/page HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("3.2.2", "another scheme", b"GET ftp://a/page HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("3.2.3", "authority form", b"GET a:80 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("3.2.4", "asterisk form of a GET", b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    # The version (RFC 9112, 2.3)
    ("2.3", "HTTP/0.9", b"GET /page\r\n", 400),
    ("2.3", "HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("2.3", "HTTP/2.0", b"GET /page HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    ("2.3", "HTTP/3.0", b"GET /page HTTP/3.0\r\n" + HOST + b"\r\n", 505),
    ("2.3", "HTTP/0.9 in words", b"GET /page HTTP/0.9\r\n" + HOST + b"\r\n", 505),
    ("2.3", "lower case", b"GET /page http/1.1\r\n" + HOST + b"\r\n", 400),
    ("2.3", "more digits", b"GET /page HTTP/1.10\r\n" + HOST + b"\r\n", 400),
    ("2.3", "another protocol", b"GET /page HTTPS/1.1\r\n" + HOST + b"\r\n", 400),
    # Fields (RFC 9112, 5, and RFC 9110, 5)
    ("5", "no colon", PAGE + HOST + b"nothing\r\n\r\n", 400),
    ("5", "no name", PAGE + HOST + b": a\r\n\r\n", 400),
    ("5.1", "space before the colon", POST + b"Content-Length : 5\r\n\r\nhello", 400),
    ("5.1", "tab before the colon", POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    ("5.1", "space within a name", PAGE + HOST + b"X Y: a\r\n\r\n", 400),
    ("5.1", "name beyond ASCII", PAGE + HOST + b"\xc3\xa4: a\r\n\r\n", 400),
    ("5.2", "obs-fold with a space", PAGE + HOST + b"X: a\r\n b\r\n\r\n", 400),
    ("5.2", "obs-fold with a tab", PAGE + HOST + b"X: a\r\n\tb\r\n\r\n", 400),
    ("5.2", "obs-fold of a coding", POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    ("9110 5.5", "NUL in a value", PAGE + HOST + b"X: a\0b\r\n\r\n", 400),
    ("9110 5.5", "escape in a value", PAGE + HOST + b"X: a\x1bb\r\n\r\n", 400),
    ("9110 5.5", "DEL in a value", PAGE + HOST + b"X: a\x7fb\r\n\r\n", 400),
    ("9110 5.4", "one field too long", PAGE + HOST + b"X: " + b"a" * MAX_HEAD + b"\r\n\r\n", 431),
    ("9110 5.4", "fields without an end", PAGE + b"X: a\r\n" * (MAX_HEAD // 6), 431),
    ("9110 5.4", "too many fields", PAGE + HOST + b"X: a\r\n" * MAX_FIELDS + b"\r\n", 431),
    ("9110 5.3", "two tokens", PAGE + HOST + b"Authorization: a\r\n" * 2 + b"\r\n", 400),
    # The length of the body (RFC 9112, 6)
    ("6.1", "both lengths, chunked first (TE.CL)", POST
     + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" + HIDDEN, 400),
    ("6.1", "both lengths, Content-Length first (CL.TE)", POST
     + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    ("6.1", "both lengths, 0", POST
     + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n" + HIDDEN, 400),
    ("6.1", "two codings in two lines (TE.TE)", POST
     + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    ("6.1", "chunked twice in two lines", POST
     + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    ("6.1", "chunked twice", POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    ("6.1", "identity", POST + b"Transfer-Encoding: identity\r\n\r\n" + HIDDEN, 400),
    ("6.1", "gzip before chunked", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 501),
    ("6.1", "chunked is not the last", POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + HIDDEN, 400),
    ("6.1", "unknown coding", POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    ("6.1", "quoted coding", POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n' + HIDDEN, 400),
    ("6.1", "empty coding", POST + b"Transfer-Encoding:\r\n\r\n" + HIDDEN, 400),
    ("6.1", "coding with a vertical tab", POST
     + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    ("6.1", "coding with a parameter", POST
     + b"Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    ("6.1", "coding in HTTP/1.0",
     b"POST /resize?width=8 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("6.2", "not a number", POST + b"Content-Length: five\r\n\r\nhello", 400),
    ("6.2", "negative", POST + b"Content-Length: -5\r\n\r\nhello", 400),
    ("6.2", "plus", POST + b"Content-Length: +5\r\n\r\nhello", 400),
    ("6.2", "hexadecimal", POST + b"Content-Length: 0x5\r\n\r\nhello", 400),
    ("6.2", "underscore", POST + b"Content-Length: 1_0\r\n\r\nhello", 400),
    ("6.2", "fraction", POST + b"Content-Length: 5.0\r\n\r\nhello", 400),
    ("6.2", "other digits", POST + b"Content-Length: \xb2\r\n\r\nhello", 400),
    ("6.2", "empty", POST + b"Content-Length:\r\n\r\nhello", 400),
    ("6.2", "more than 63 bits", POST + b"Content-Length: 9999999999999999999\r\n\r\nhello", 413),
    ("6.2", "more than 64 bits", POST + b"Content-Length: 18446744073709551621\r\n\r\nhello", 400),
    ("6.3", "two that differ", POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + HIDDEN, 400),
    ("6.3", "two that are equal", POST
     + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello" + HIDDEN, 400),
    ("6.3", "a list that differs", POST + b"Content-Length: 5, 6\r\n\r\nhello" + HIDDEN, 400),
    ("6.3", "a list of equals", POST + b"Content-Length: 5, 5\r\n\r\nhello" + HIDDEN, 400),
    # Chunks (RFC 9112, 7.1)
    ("7.1", "size is no number", CHUNKED + b"xyz\r\nhello\r\n0\r\n\r\n" + HIDDEN, 400),
    ("7.1", "size is empty", CHUNKED + b"\r\nhello\r\n0\r\n\r\n" + HIDDEN, 400),
    ("7.1", "size with a prefix", CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n" + HIDDEN, 400),
    ("7.1", "size with a plus", CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n" + HIDDEN, 400),
    ("7.1", "size with a minus", CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n" + HIDDEN, 400),
    ("7.1", "size with an underscore", CHUNKED + b"0_5\r\nhello\r\n0\r\n\r\n" + HIDDEN, 400),
    ("7.1", "size with a space before", CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n" + HIDDEN, 400),
    ("7.1", "size with a space after", CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n" + HIDDEN, 400),
    ("7.1", "size beyond 64 bits", CHUNKED + b"10000000000000005\r\nhello\r\n0\r\n\r\n" + HIDDEN, 400),
    ("7.1", "size of 60 bits", CHUNKED + b"fffffffffffffff\r\n" + bytes(2_000_000), 413),
    ("7.1", "bare LF after the size", CHUNKED + b"5\nhello\r\n0\r\n\r\n" + HIDDEN, 400),
    ("7.1", "bare CR after the size", CHUNKED + b"5\rhello\r\n0\r\n\r\n" + HIDDEN, 400),
    ("7.1", "data is longer", CHUNKED + b"4\r\nhello\r\n0\r\n\r\n" + HIDDEN, 400),
    ("7.1", "data is shorter", CHUNKED + b"6\r\nhello\r\n0\r\n\r\n" + HIDDEN, 400),
    ("7.1", "bare LF after the data", CHUNKED + b"5\r\nhello\n0\r\n\r\n" + HIDDEN, 400),
    ("7.1", "other bytes after the data", CHUNKED + b"5\r\nhelloXX0\r\n\r\n" + HIDDEN, 400),
    ("7.1", "tiny chunks", CHUNKED + b"1\r\nx\r\n" * 20_000, 400),
    ("7.1.1", "extension too long", CHUNKED + b"5;a=" + b"b" * MAX_LINE + b"\r\nhello\r\n0\r\n\r\n", 400),
    ("7.1.1", "extension without a name", CHUNKED + b"5;\r\nhello\r\n0\r\n\r\n" + HIDDEN, 400),
    ("7.1.1", "extension without an end", CHUNKED + b'5;a="b\r\nhello\r\n0\r\n\r\n' + HIDDEN, 400),
    ("7.1.1", "extension with a bare LF", CHUNKED + b"5;a\nhello\r\n0\r\n\r\n" + HIDDEN, 400),
    ("7.1.1", "extension with a bare CR", CHUNKED + b"5;a\rb\r\nhello\r\n0\r\n\r\n" + HIDDEN, 400),
    ("7.1.1", "extension with a control character", CHUNKED + b"5;a\0\r\nhello\r\n0\r\n\r\n" + HIDDEN, 400),
    ("7.1.2", "trailers too long", CHUNKED
     + b"5\r\nhello\r\n0\r\n" + b"X: a\r\n" * MAX_TRAILERS + b"\r\n", 400),
    ("7.1.2", "trailer without a colon", CHUNKED + b"5\r\nhello\r\n0\r\nX\r\n\r\n" + HIDDEN, 400),
    ("7.1.2", "trailer with a bare LF", CHUNKED + b"5\r\nhello\r\n0\r\nX: a\n\r\n" + HIDDEN, 400),
    ("7.1.2", "trailer with obs-fold", CHUNKED + b"5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n" + HIDDEN, 400),
    # Other protocols at this port
    ("-", "the binary protocol, version 2", b"\0\0\0\0VIPS\2\1" + bytes(18), 400),
    ("-", "the binary protocol, version 1", b"\0\0\0\5\0\0\0\5\0\0\0\5hello", 400),
    ("-", "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("-", "noise", bytes(range(256)), 400),
]  # fmt: skip

# Section, what is right, the bytes, the statuses of the replies.
ACCEPTED = [
    ("2.2", "an empty line before a request", b"\r\n" + get(b"/page"), [200]),
    ("2.2", "an empty line between requests", get(b"/page") + b"\r\n" + get(b"/page"), [200, 200]),
    ("2.3", "a later minor version", b"GET /page HTTP/1.5\r\n" + HOST + b"\r\n", [200]),
    ("3", "8,000 bytes", b"GET /page?" + b"a" * 7980 + b" HTTP/1.1\r\n" + HOST + b"\r\n", [200]),
    ("3.2", "empty Host", PAGE + b"Host:\r\n\r\n", [200]),
    ("3.2", "Host with an IPv6 address", PAGE + b"Host: [::1]:80\r\n\r\n", [200]),
    ("3.2.1", "escapes", b"GET /p%61ge?%3f HTTP/1.1\r\n" + HOST + b"\r\n", [200]),
    ("3.2.2", "absolute form", b"GET http://other/page HTTP/1.1\r\n" + HOST + b"\r\n", [200]),
    ("3.2.2", "absolute form of https", b"GET HTTPS://other:1/page?a HTTP/1.1\r\n" + HOST + b"\r\n", [200]),
    ("3.2.2", "absolute form without a path", b"GET http://other HTTP/1.1\r\n" + HOST + b"\r\n", [404]),
    ("3.2.4", "asterisk form", b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", [204]),
    ("5.1", "no space after the colon", PAGE + b"Host:a\r\nX:\r\n\r\n", [200]),
    ("5.1", "spaces and tabs around a value", PAGE + b"Host: \t a \t \r\n\r\n", [200]),
    ("9110 5.1", "names in any case", b"GET /page HTTP/1.1\r\nhOsT: a\r\n\r\n", [200]),
    ("9110 5.5", "obs-text in a value", PAGE + HOST + b"X: \xe4\xff\r\n\r\n", [200]),
    ("9110 7.8", "an upgrade is not taken", PAGE
     + HOST + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n", [200]),
    ("6.2", "a body of a GET", PAGE + HOST + b"Content-Length: 5\r\n\r\nhello" + get(b"/page"), [200, 200]),
    ("6.2", "leading zeros", PAGE + HOST + b"Content-Length: 005\r\n\r\nhello" + get(b"/page"), [200, 200]),
    ("9.3", "HTTP/1.1 lives on", get(b"/page") * 3, [200, 200, 200]),
    ("9.3", "HTTP/1.0 with keep-alive lives on",
     b"GET /page HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n" * 2, [200, 200]),
    ("9.3.2", "pipelined in order", get(b"/nothing") + get(b"/page") + get(b"/resize"), [404, 200, 405]),
    ("9.6", "close within a list", PAGE + HOST + b"Connection: x, Close\r\n\r\n" + HIDDEN, [200]),
    ("9.3", "HTTP/1.0 is closed", b"GET /page HTTP/1.0\r\n\r\n" + HIDDEN, [200]),
    ("9110 10.1.1", "an expectation in HTTP/1.0",
     b"GET /page HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", [200]),
]  # fmt: skip


def in_both_ways(cases: Sequence[tuple[str, str, bytes, object]]) -> list[pytest.ParameterSet]:
    """Each case sent at once, and byte by byte if it is short: data, what is expected, bytes of a piece."""
    return [
        pytest.param(data, expected, piece, id=f"{section}: {name}, {'in pieces' if piece else 'at once'}")
        for section, name, data, expected in cases
        for piece in (0, 1)
        if not piece or len(data) <= MOST_IN_PIECES
    ]


@pytest.mark.parametrize(("data", "status", "piece"), in_both_ways(REFUSED))
async def test_refused(tmp_path: Path, data: bytes, status: int, piece: int) -> None:
    async with serving(tmp_path, max_upload=1_000_000) as server, client_of(server) as client:
        if piece:
            for position in range(len(data)):
                await client.send(data[position : position + 1])
        else:
            await client.send(data)
        reply = await client.read()
        assert (reply.status, reply.headers["connection"]) == (status, "close"), reply.body
        assert reply.headers["content-length"] == str(len(reply.body))
        assert await client.rest() == b""
        assert_no_exception(server, status)


def assert_no_exception(server: HttpServer, status: int) -> None:
    assert server.jobs == []
    assert [line.status for line in server.lines] == [status]
    assert server.spool.memory_left == 16 << 20


@pytest.mark.parametrize(("data", "statuses", "piece"), in_both_ways(ACCEPTED))
async def test_accepted(tmp_path: Path, data: bytes, statuses: list[int], piece: int) -> None:
    async with serving(tmp_path) as server, client_of(server) as client:
        for position in range(0, len(data), piece or len(data)):
            await client.send(data[position : position + (piece or len(data))])
        assert [(await client.read()).status for _ in statuses] == statuses
        client.end()
        assert await client.rest() == b""


def test_every_case_has_its_own_name() -> None:
    names = [(section, name) for section, name, _, _ in (*REFUSED, *ACCEPTED)]
    assert len(set(names)) == len(names)
