"""Targets for what clients of HTTP send, and requests to be mutated for a running server."""

from collections.abc import Iterator

from fuzz.target import Target
from vipsrv.errors import BadRequest, ProtocolError
from vipsrv.server.api.form_data import FileData, FormReader
from vipsrv.server.http.head import Head
from vipsrv.server.http.reader import BodyPart, HttpReader

_BOUNDARY = b"4f8a"
_IMAGE = b"not an image, but HTTP does not look"


def _read(data: bytes, piece: int) -> list[object]:
    """The events of ``data`` that arrives in pieces; the text of a failure is the last of them."""
    reader = HttpReader()
    events: list[object] = []
    body = b""
    try:
        for start in range(0, len(data), piece):
            arrived = memoryview(data)[start : start + piece]
            while arrived:
                wanted = reader.wanted_of(arrived)
                assert 0 < wanted <= len(arrived), "a reader that has not failed takes what it is given"
                part, arrived = arrived[:wanted], arrived[wanted:]
                if reader.in_body:
                    body += part
                    received: Iterator[object] = iter(reader.body_received(len(part)))
                else:
                    received = reader.receive_data(part)
                for event in received:
                    if isinstance(event, BodyPart):
                        body += event.data
                        continue
                    events += [body, event]
                    body = b""
        reader.receive_eof()
    except ProtocolError as error:
        events.append(str(error))
    return events


def _parse_requests(data: bytes) -> None:
    """Read ``data``, whose first byte says into which pieces the rest is cut, and in one piece."""
    piece, data = 1 + (data[0] if data else 0), data[1:]
    at_once, in_pieces = _read(data, max(1, len(data))), _read(data, piece)
    heads = [event for event in at_once if isinstance(event, Head)]
    # A failure may be found earlier or called otherwise in pieces; what comes before it is the same.
    assert heads[: len(in_pieces)] == [event for event in in_pieces if isinstance(event, Head)]
    if not any(isinstance(events[-1], str) for events in (at_once, in_pieces) if events):
        assert at_once == in_pieces, "the events depend on how the bytes were cut"
    for head in heads:
        assert head.path.startswith("/") or (head.path, head.method) == ("*", "OPTIONS")
        assert head.body_size is None or head.body_size >= 0


def _form(data: bytes, piece: int) -> list[object]:
    reader = FormReader(_BOUNDARY)
    events: list[object] = []
    file = b""
    try:
        for start in range(0, len(data), piece):
            for event in reader.receive(data[start : start + piece]):
                if isinstance(event, FileData):
                    file += event.data
                else:
                    events.append(event)
        reader.receive_eof()
    except BadRequest as error:
        events.append(type(error).__name__)
    return [*events, file]


def _parse_form(data: bytes) -> None:
    piece, data = 1 + (data[0] if data else 0), data[1:]
    at_once, in_pieces = _form(data, max(1, len(data))), _form(data, piece)
    assert (at_once[-2:-1] == ["BadRequest"]) == (in_pieces[-2:-1] == ["BadRequest"])
    if at_once[-2:-1] != ["BadRequest"]:
        assert at_once == in_pieces, "the events depend on how the bytes were cut"


def form(image: bytes) -> bytes:
    """Return a form with two fields and an image."""
    field = b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    return (
        field % (_BOUNDARY, b"width", b"32")
        + field % (_BOUNDARY, b"height", b"24")
        + b'--%b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n%b\r\n--%b--\r\n" % (_BOUNDARY, image, _BOUNDARY)
    )


def requests(image: bytes) -> list[bytes]:
    """Return requests of each kind with this image, alone and several one after another."""
    post = b"POST /resize?width=32&height=24 HTTP/1.1\r\nHost: localhost:8080\r\n"
    get = b"GET /formats HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n"
    half = len(image) // 2
    chunks = [b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in (image[:half], image[half:]) if part]
    body = form(image)
    whole = post + b"Content-Length: %d\r\n\r\n%b" % (len(image), image)
    tus = b"Host: localhost\r\nTus-Resumable: 1.0.0\r\n"
    of_upload = b"Content-Type: application/offset+octet-stream\r\n"
    one = b" /files/0123456789abcdef0123456789abcdef HTTP/1.1\r\n" + tus
    create = b"POST /files HTTP/1.1\r\n" + tus + b"Upload-Length: %d\r\n" % len(image)
    return [
        create
        + b"Upload-Metadata: name YS5qcGc=,b\r\n"
        + of_upload
        + b"Content-Length: %d\r\n\r\n" % half
        + image[:half],
        create
        + of_upload
        + b"Upload-Checksum: sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(chunks)
        + b"0\r\n\r\n",
        b"OPTIONS /files HTTP/1.1\r\n" + tus + b"\r\nHEAD" + one + b"\r\nDELETE" + one + b"\r\n",
        b"PATCH" + one + of_upload + b"Upload-Offset: 0\r\nContent-Length: 5\r\n\r\nhello" + get,
        whole,
        whole.replace(b"/resize?width=32&height=24", b"/info"),
        whole.replace(b"?width=32&height=24", b"?outputs=32x24,90x9&format=auto"),
        whole.replace(b"&height=24", b"&crop=0,0,.5,1&flop=1&rotate=9&sharpen=2&pad=3&placeholder=thumbhash"),
        whole.replace(b"&height=24", b"&pages=all&format=webp&blur=1&grey=true&rounded=9"),
        post + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\nX: y\r\n\r\n",
        b"POST /resize HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=%b\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (_BOUNDARY, len(body), body),
        post + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n%b" % (len(image), image),
        whole + get + whole,
        get + get.replace(b"/formats", b"/openapi.json"),
        b"HEAD http://localhost/formats?a=%41 HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n" + get,
        b"GET /formats HTTP/1.0\r\nConnection: keep-alive\r\nAuthorization: Bearer x\r\n\r\n" + get,
    ]


def _requests() -> Iterator[bytes]:
    for piece in (b"\0", b"\2", b"\xff"):
        for request in requests(_IMAGE):
            yield piece + request


def _forms() -> Iterator[bytes]:
    for piece in (b"\0", b"\2", b"\xff"):
        yield piece + form(_IMAGE)
        yield piece + form(b"\r\n--4f8" * 9)


TARGETS = (
    Target(name="http-requests", parse=_parse_requests, allowed=(), seeds=_requests),
    Target(name="http-form", parse=_parse_form, allowed=(), seeds=_forms),
)
