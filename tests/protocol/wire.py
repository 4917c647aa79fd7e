"""What the tests of the protocol share: messages made by hand, and a reader's events in a form to compare."""

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from vipsrv.errors import ProtocolError
from vipsrv.protocol import (
    REPLY,
    BodyReceived,
    Event,
    Kind,
    MessageEnded,
    MessageStarted,
    ReplyReader,
    RequestReader,
)

Reader = RequestReader | ReplyReader
ReaderClass = Callable[[], Reader]
Seen = MessageStarted | bytes | MessageEnded
"""An event; what was received of a body in one piece or several is one ``bytes``."""


@dataclass(frozen=True)
class Message:
    """A message as bytes, packed here by hand, and what a reader is to make of it."""

    wire: bytes
    seen: tuple[Seen, ...]


@dataclass(frozen=True)
class Stream:
    """What one side sends on a connection: several messages of version 2, or the one of version 1."""

    reader: ReaderClass
    messages: tuple[Message, ...]

    @property
    def wire(self) -> bytes:
        return b"".join(message.wire for message in self.messages)

    @property
    def seen(self) -> list[Seen]:
        return [seen for message in self.messages for seen in message.seen]


def message_v2(
    kind: int, status: int, request_id: int, meta: dict[str, Any] | None = None, body: bytes = b""
) -> Message:
    encoded = b"" if meta is None else json.dumps(meta, ensure_ascii=False).encode()
    wire = struct.pack("!I4sBBHIIQ", 0, b"VIPS", 2, kind, status, request_id, len(encoded), len(body))
    started = MessageStarted(
        version=2,
        kind=kind,
        status=status,
        request_id=request_id,
        meta=meta or {},
        body_size=len(body),
        head_size=28 + len(encoded),
    )
    return Message(wire + encoded + body, _seen(started, body))


def request_v1(width: int, height: int, body: bytes) -> Message:
    meta = {"width": width, "height": height}
    started = MessageStarted(
        version=1,
        kind=Kind.RESIZE,
        status=0,
        request_id=0,
        meta=meta,
        body_size=len(body),
        head_size=12,
    )
    return Message(struct.pack("!III", len(body), width, height) + body, _seen(started, body))


def reply_v1(body: bytes) -> Message:
    started = MessageStarted(
        version=1,
        kind=Kind.RESIZE | REPLY,
        status=200,
        request_id=0,
        meta={},
        body_size=len(body),
        head_size=4,
    )
    return Message(struct.pack("!I", len(body)) + body, _seen(started, body))


def _seen(started: MessageStarted, body: bytes) -> tuple[Seen, ...]:
    return (started, body, MessageEnded()) if body else (started, MessageEnded())


class Recorder:
    """Runs a reader and keeps what it gave: the events so far, and the error, if any."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.seen: list[Seen] = []
        self.error: str | None = None

    def feed(self, data: bytes) -> None:
        try:
            for event in self.reader.receive_data(data):
                self.record(event)
        except ProtocolError as error:
            self.error = str(error)

    def eof(self) -> None:
        try:
            self.reader.receive_eof()
        except ProtocolError as error:
            self.error = str(error)

    def record(self, event: Event) -> None:
        if isinstance(event, BodyReceived):
            self.record_body(bytes(event.data))
        else:
            self.seen.append(event)

    def record_body(self, data: bytes) -> None:
        assert data
        if isinstance(self.seen[-1], bytes):
            self.seen[-1] += data
        else:
            self.seen.append(data)


def run(reader: ReaderClass, pieces: Iterable[bytes], *, eof: bool = False) -> Recorder:
    recorder = Recorder(reader())
    for piece in pieces:
        recorder.feed(piece)
    if eof:
        recorder.eof()
    return recorder


def split(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """``data`` in pieces, cut at the numbers taken modulo its length; a piece may be empty."""
    start = 0
    for cut in sorted(cut % (len(data) + 1) for cut in cuts):
        yield data[start:cut]
        start = cut
    yield data[start:]


def single_bytes(data: bytes) -> Iterator[bytes]:
    return (data[i : i + 1] for i in range(len(data)))


cuts = st.lists(st.integers(0, 2000), max_size=12)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)

# Lone surrogates have no UTF-8, so hypothesis' text leaves them to a test of their own.
metas = st.none() | st.dictionaries(st.text(max_size=12), json_values, max_size=5)
bodies = st.binary(max_size=200)
uint8 = st.integers(0, 0x7F)
uint32 = st.integers(0, 2**32 - 1)

requests_v2 = st.builds(message_v2, uint8, st.just(0), uint32, metas, bodies)
results_v2 = st.builds(message_v2, uint8.map(lambda kind: kind | REPLY), st.just(200), uint32, metas, bodies)
errors_v2 = st.builds(message_v2, uint8.map(lambda kind: kind | REPLY), st.integers(400, 599), uint32, metas)

streams = st.one_of(
    st.builds(
        Stream, st.just(RequestReader), st.lists(requests_v2, min_size=1, max_size=4).map(tuple[Message, ...])
    ),
    st.builds(
        Stream,
        st.just(ReplyReader),
        st.lists(results_v2 | errors_v2, min_size=1, max_size=4).map(tuple[Message, ...]),
    ),
    st.builds(
        lambda message: Stream(RequestReader, (message,)),
        st.builds(request_v1, uint32, uint32, st.binary(min_size=1, max_size=300)),
    ),
    st.builds(
        lambda message: Stream(ReplyReader, (message,)),
        st.builds(reply_v1, st.binary(min_size=1, max_size=300)),
    ),
)
"""Everything that one side may send on a connection."""
