"""Heads, chunks and replies without sockets: what they mean, and which states follow which."""

import re

import pytest

from vipsrv.errors import BadRequest, Busy, Unauthorized
from vipsrv.server.http import chunked, reader
from vipsrv.server.http.chunked import ChunkedDecoder
from vipsrv.server.http.head import Head, parse_head
from vipsrv.server.http.messages import HttpResponse
from vipsrv.server.http.reader import BodyPart, HttpReader, ReaderState, RefusedRequest, RequestEnded
from vipsrv.server.http.refusals import MethodNotAllowed
from vipsrv.server.http.replies import headers_of_refusal, pack_head, pack_response


def test_a_head() -> None:
    head = parse_head(
        b"POST /a%20b/%C3%A4?x=%20&y HTTP/1.1\r\nHost: a\r\nX-One:  1 \r\nx-one:2\r\nContent-Length: 007\r\n"
        b"Expect: 100-Continue\r\nConnection: x , Close\r\n\r\n"
    )
    assert (head.method, head.path, head.query) == ("POST", "/a b/ä", "x=%20&y")
    assert dict(head.fields)["x-one"] == "1, 2"
    assert (head.body_size, head.continues, head.keeps_alive, head.is_http_1_0) == (7, True, False, False)


@pytest.mark.parametrize(
    ("line", "fields", "keeps_alive"),
    [
        (b"HTTP/1.1", b"", True),
        (b"HTTP/1.1", b"Connection: close\r\n", False),
        (b"HTTP/1.1", b"Connection: keep-alive, close\r\n", False),
        (b"HTTP/1.0", b"", False),
        (b"HTTP/1.0", b"Connection: keep-alive\r\n", True),
        (b"HTTP/1.0", b"Connection: close, keep-alive\r\n", False),
    ],
)
def test_whether_a_connection_lives_on(line: bytes, fields: bytes, *, keeps_alive: bool) -> None:
    head = parse_head(b"GET / %b\r\nHost: a\r\n%b\r\n" % (line, fields))
    assert head.keeps_alive == keeps_alive


def events_of(data: bytes, piece: int, *, fed: bool = False) -> list[object]:
    """The events of bytes that arrive in pieces; the parts of a body are joined."""
    one = HttpReader()
    events: list[object] = []
    body = b""
    for start in range(0, len(data), piece):
        arrived = memoryview(data)[start : start + piece]
        while arrived:
            part = arrived[: one.wanted_of(arrived)]
            arrived = arrived[len(part) :]
            for event in one.body_received(len(part)) if one.in_body else one.receive_data(part):
                if isinstance(event, BodyPart):
                    body += event.data
                elif isinstance(event, RequestEnded):
                    events.append(body)
                    body = b""
                else:
                    assert isinstance(event, Head)
                    events.append(event.path)
                    if fed:
                        one.feed_body()
    return events


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
def test_the_cut_of_the_bytes_does_not_matter(piece: int) -> None:
    data = (
        b"\r\nGET /one HTTP/1.1\r\nHost: a\r\n\r\n"
        b"POST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
        b"POST /three HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'3;a=b; c="d e"\r\nhel\r\n00002\r\nlo\r\n0\r\nX: y\r\n\r\n'
        b"GET /four HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    assert events_of(data, piece) == ["/one", b"", "/two", b"", "/three", b"hello", "/four", b""]
    assert events_of(data, piece, fed=True)[3] == b"hello"


def test_a_reader_that_has_failed_stays_so() -> None:
    one = HttpReader()
    for _ in range(2):
        with pytest.raises(RefusedRequest, match="this is not a request"):
            list(one.receive_data(memoryview(b"\0")))
    assert one.state is ReaderState.FAILED
    assert one.wanted_of(memoryview(b"x")) == 0
    with pytest.raises(RefusedRequest):
        one.receive_eof()


def test_the_end_of_the_stream() -> None:
    one = HttpReader()
    one.receive_eof()
    list(one.receive_data(memoryview(b"GET / ")))
    with pytest.raises(RefusedRequest, match="ended within a request"):
        one.receive_eof()


def test_chunks_may_be_small_if_there_are_few() -> None:
    with pytest.raises(BadRequest, match="too small"):
        decode([b"1\r\n", b"x", b"\r\n"] * 10_000)
    assert decode([b"1\r\n", b"x", b"\r\n"] * 1000 + [b"0\r\n", b"\r\n"]).state is chunked.ChunkState.FINISHED


def decode(pieces: list[bytes]) -> ChunkedDecoder:
    decoder = ChunkedDecoder()
    for piece in pieces:
        decoder.feed(memoryview(piece))
    return decoder


def test_every_state_of_the_tables_is_there() -> None:
    assert set(reader.TRANSITIONS) == set(reader.ReaderState)
    assert set(chunked.TRANSITIONS) == set(chunked.ChunkState)


def test_a_reply() -> None:
    response = HttpResponse(status=200, headers=(("A", "b"),), body=b"hello")
    packed = pack_response(response, (("C", "d"),), connection="close", head_only=False)
    assert re.fullmatch(
        rb"HTTP/1\.1 200 OK\r\nDate: [A-Za-z0-9:, ]+ GMT\r\nA: b\r\nC: d\r\nContent-Length: 5\r\n"
        rb"Connection: close\r\n\r\nhello",
        packed,
    )
    assert pack_response(response, connection=None, head_only=True).endswith(b"Content-Length: 5\r\n\r\n")
    for status in (204, 304):
        assert b"Content-Length" not in pack_response(
            HttpResponse(status=status), connection=None, head_only=False
        )


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\rb"])
def test_a_field_with_a_line_break_is_not_sent(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        pack_head(200, (("X", value),), connection=None)


def test_the_fields_of_a_refusal() -> None:
    assert headers_of_refusal(Unauthorized("no"), ()) == (("WWW-Authenticate", "Bearer"),)
    assert headers_of_refusal(Unauthorized("no"), (("www-authenticate", "X"),)) == ()
    assert headers_of_refusal(Busy("later", retry_after_ms=1), ()) == (("Retry-After", "1"),)
    assert headers_of_refusal(Busy("later", retry_after_ms=2001), ()) == (("Retry-After", "3"),)
    assert headers_of_refusal(MethodNotAllowed("no", "GET"), ()) == (("Allow", "GET"),)
