"""Targets for data from the network: messages of both directions, a RESIZE's JSON, a proxy's header."""

from collections.abc import Iterator

from fuzz.target import Target
from vipsrv.errors import ProtocolError
from vipsrv.options import ResizeReport, ResizeRequest
from vipsrv.protocol import (
    FIRST_ERROR_STATUS,
    REPLY,
    V1_REPLY,
    V1_REQUEST,
    BodyReceived,
    Kind,
    MessageEnded,
    MessageStarted,
    ReplyReader,
    RequestReader,
    pack_message,
    unpack_error,
)
from vipsrv.protocol.frames import unpack_meta
from vipsrv.protocol.proxy_protocol import SIGNATURE, ProxyHeaderReader

_IMAGE = b"not an image, but the protocol does not look"

_UPLOAD = "0123456789abcdef" * 2


def _read(reader: RequestReader | ReplyReader, data: bytes, piece: int) -> list[object]:
    """The events of ``data`` fed in pieces; the text of a failure is the last of them."""
    events: list[object] = []
    body = b""
    try:
        for start in range(0, len(data), piece):
            for event in reader.receive_data(data[start : start + piece]):
                if isinstance(event, BodyReceived):
                    # How a body is cut depends on the pieces; its bytes do not.
                    body += bytes(event.data)
                    continue
                events.append(event)
                if isinstance(event, MessageEnded):
                    events.append(body)
                    body = b""
        reader.receive_eof()
    except ProtocolError as error:
        events.append(str(error))
        assert reader.wanted == 0, "a failed reader wants more bytes"
    events.append(body)
    return events


def _read_in_two_ways(kind: type[RequestReader] | type[ReplyReader], data: bytes) -> list[MessageStarted]:
    """The messages in ``data``, whose first byte says into which pieces the rest is cut.

    The events must be the same as those of the rest in one piece.
    """
    piece, data = 1 + (data[0] if data else 0), data[1:]
    events = _read(kind(), data, max(1, len(data)))
    assert _read(kind(), data, piece) == events, "the events depend on how the bytes were cut"
    return [event for event in events if isinstance(event, MessageStarted)]


def _parse_requests(data: bytes) -> None:
    for message in _read_in_two_ways(RequestReader, data):
        assert message.kind < REPLY
        if message.version == 2 and message.kind == Kind.RESIZE:
            try:
                request = ResizeRequest.from_meta(message.meta)
            except ValueError:
                continue
            assert ResizeRequest.from_meta(request.to_meta()) == request


def _parse_replies(data: bytes) -> None:
    for message in _read_in_two_ways(ReplyReader, data):
        if message.status >= FIRST_ERROR_STATUS:
            assert unpack_error(message.status, message.meta).message
            continue
        try:
            ResizeReport.from_meta(message.meta)
        except ValueError:
            continue


def _parse_options(data: bytes) -> None:
    request = ResizeRequest.from_meta(unpack_meta(data))
    assert ResizeRequest.from_meta(request.to_meta()) == request


def _requests() -> Iterator[bytes]:
    resize = pack_message(Kind.RESIZE, 7, b'{"width":320,"height":240}', body_size=len(_IMAGE)) + _IMAGE
    for piece in (b"\0", b"\2", b"\xff"):
        yield piece + V1_REQUEST.pack(len(_IMAGE), 800, 600) + _IMAGE
        yield piece + resize
        yield piece + pack_message(Kind.HELLO, 1, {"client": "fuzz"}) + pack_message(Kind.PING, 2) + resize
        yield piece + pack_message(Kind.CANCEL, 3, {"request_id": 7})
        yield piece + pack_message(Kind.INFO, 4, body_size=len(_IMAGE)) + _IMAGE
        yield piece + _upload(0, len(_IMAGE)) + _upload(len(_IMAGE), 0) + _upload(9, len(_IMAGE) - 9)
        yield piece + _upload(0, 9) + pack_message(Kind.UPLOAD_STATUS, 5, {"id": _UPLOAD}) + _upload(9, 1)


def _upload(offset: int, size: int) -> bytes:
    """A RESIZE with a part of an upload."""
    upload = {"id": _UPLOAD, "size": len(_IMAGE), "offset": offset}
    head = pack_message(Kind.RESIZE, 7, {"width": 32, "height": 24, "upload": upload}, body_size=size)
    return head + _IMAGE[offset : offset + size]


def _replies() -> Iterator[bytes]:
    report = (
        b'{"source":{"format":"jpeg","width":4,"height":3,"pages":1,"has_alpha":false,"orientation":1,"size":9},'
        b'"outputs":[{"width":2,"height":1,"format":"jpeg","quality":80,"size":44}],'
        b'"ms":{"receive":1.2,"queue":0.1,"process":41.9,"total":43.2},"ratio":0.2}'
    )
    new = report.replace(b'"size":44}', b'"size":44,"frames":8,"ssim":0.97123}')
    new = new[:-1] + b',"placeholder":{"blurhash":"LWHxc}v~~qbb","dominant":"#a8a8a8"}}'
    for piece in (b"\0", b"\2", b"\xff"):
        yield piece + V1_REPLY.pack(len(_IMAGE)) + _IMAGE
        yield (
            piece + pack_message(Kind.RESIZE | REPLY, 7, report, status=200, body_size=len(_IMAGE)) + _IMAGE
        )
        yield piece + pack_message(Kind.RESIZE | REPLY, 7, new, status=200, body_size=len(_IMAGE)) + _IMAGE
        yield piece + pack_message(Kind.PING | REPLY, 1, status=200) * 2
        yield piece + pack_message(
            Kind.RESIZE | REPLY, 7, {"code": "busy", "message": "later", "retry_after_ms": 250}, status=429
        )


def _read_proxy_header(data: bytes, piece: int) -> tuple[object, int]:
    """The client that a header names, or the text of the failure, and the number of bytes read."""
    reader, start = ProxyHeaderReader(), 0
    try:
        while reader.client is None and start < len(data):
            part = data[start : start + min(piece, reader.wanted)]
            reader.receive_data(part)
            start += len(part)
    except ProtocolError as error:
        return str(error), 0
    return reader.client, start


def _parse_proxy_header(data: bytes) -> None:
    piece, data = 1 + (data[0] if data else 0), data[1:]
    read = _read_proxy_header(data, max(1, len(data)))
    assert _read_proxy_header(data, piece) == read, "the header depends on how the bytes were cut"


def _proxy_headers() -> Iterator[bytes]:
    for piece in (b"\0", b"\2", b"\xff"):
        yield piece + SIGNATURE + b"\x21\x11\0\x0c" + bytes(range(12))
        yield piece + SIGNATURE + b"\x21\x21\0\x24" + bytes(range(36))
        yield piece + SIGNATURE + b"\x21\x31\0\xd8" + bytes(216)
        yield piece + SIGNATURE + b"\x20\0\0\0" + b"follows"
        yield piece + SIGNATURE + b"\x21\x11\0\x12" + bytes(range(12)) + b"\4\0\3abc"


def _options() -> Iterator[bytes]:
    yield b'{"width":320,"height":240}'
    yield b'{"width":320,"fit":"inside","format":"webp","quality":80,"max_bytes":100000,"deadline_ms":500}'
    yield b'{"width":9,"height":9,"fit":"cover","position":"right top","background":"#09f0f0"}'
    yield b'{"outputs":[{"width":1,"height":1},{"height":2,"fit":"outside","lossless":true,"format":"png"}]}'
    yield b'{"width":9,"height":9,"crop":[0,0.25,1,0.5],"trim":10,"flip":"both","rotate":20,"pad":[1,2,3,4]}'
    yield b'{"width":9,"height":9,"fit":"cover","focus":[0.5,1],"modulate":[1.2,0],"grey":true,"blur":1.5}'
    yield b'{"width":9,"height":9,"sharpen":true,"watermark":"logo","watermark_scale":0.5,"rounded":4}'
    yield b'{"width":9,"height":9,"pages":"0-9","chroma":"4:4:4","min_ssim":0.97,"placeholder":["average"]}'
    yield b'{"width":1,"height":1,"upload":{"id":"0123456789abcdef0123456789abcdef","size":9,"offset":3}}'


TARGETS = (
    Target(name="protocol-requests", parse=_parse_requests, allowed=(), seeds=_requests),
    Target(name="proxy-header", parse=_parse_proxy_header, allowed=(), seeds=_proxy_headers),
    Target(name="protocol-replies", parse=_parse_replies, allowed=(), seeds=_replies),
    Target(name="resize-options", parse=_parse_options, allowed=(ProtocolError, ValueError), seeds=_options),
)
