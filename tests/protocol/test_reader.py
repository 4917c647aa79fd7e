from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.wire import (
    Message,
    ReaderClass,
    Recorder,
    Stream,
    cuts,
    message_v2,
    reply_v1,
    request_v1,
    run,
    single_bytes,
    split,
    streams,
)
from vipsrv.errors import ProtocolError
from vipsrv.protocol import (
    Header,
    Kind,
    MessageEnded,
    MessageStarted,
    ReplyReader,
    RequestReader,
    pack_message,
)

PING = message_v2(6, 0, 1)
PONG = message_v2(0x86, 200, 1)


@dataclass(frozen=True)
class Case:
    """What one side sends, the events of it, and the error that its last byte causes, if it does."""

    name: str
    reader: ReaderClass
    wire: bytes
    events: tuple[MessageStarted | bytes | MessageEnded, ...] = ()
    error: str | None = None


def _header(
    kind: int,
    status: int = 0,
    meta_size: int = 0,
    body_size: int = 0,
    *,
    version: int = 2,
    request_id: int = 5,
) -> bytes:
    header = Header(kind, status, request_id, meta_size, body_size).pack()
    return header[:8] + bytes([version]) + header[9:]


def _good(name: str, reader: ReaderClass, *messages: Message) -> Case:
    stream = Stream(reader, messages)
    return Case(name, reader, stream.wire, tuple(stream.seen))


def _bad(name: str, reader: ReaderClass, wire: bytes, error: str, *before: Message) -> Case:
    stream = Stream(reader, before)
    return Case(name, reader, stream.wire + wire, tuple(stream.seen), error)


V1_REQUEST = request_v1(800, 600, b"image")
V1_REPLY = reply_v1(b"jpeg")
RESIZE = message_v2(2, 0, 7, {"width": 3, "height": 2}, b"image")
RESIZED = message_v2(0x82, 200, 7, {"ratio": 1.5}, b"jpeg")
REFUSED = message_v2(0x82, 413, 7, {"code": "too_large"})

NOT_VIPS = "the size of the image is 0, and this is not a version 2 message"
NO_HEADER = "the header does not start with a zero and the letters VIPS"
AFTER_V1 = "there are bytes after the message, and version 1 allows only one message"

CASES = [
    _good("v1 request", RequestReader, V1_REQUEST),
    _good("v1 request of one byte", RequestReader, request_v1(1, 1, b"x")),
    _good("v1 request without a target", RequestReader, request_v1(0, 0, b"x")),
    _good("v1 request that looks like v2 but for its size", RequestReader, request_v1(0x56495053, 2, b"x")),
    _good("v2 request with nothing", RequestReader, PING),
    _good("v2 request with a meta", RequestReader, message_v2(5, 0, 2, {"request_id": 1})),
    _good("v2 request with a body", RequestReader, message_v2(3, 0, 2, None, b"image")),
    _good("v2 request with both", RequestReader, RESIZE),
    _good("v2 requests one after another", RequestReader, PING, RESIZE, RESIZE, PING),
    _good("v2 request of an unknown kind", RequestReader, message_v2(0x7F, 0, 2, {"a": [1]}, b"x")),
    _bad("empty image", RequestReader, bytes.fromhex("00000000 00000320 00000258"), NOT_VIPS),
    _bad("another magic", RequestReader, b"\0\0\0\0VIPX\2\6\0\0", NOT_VIPS),
    _bad("another version", RequestReader, _header(6, version=3), "version 3 of the protocol"),
    _bad("meta of 4 GiB", RequestReader, _header(2, meta_size=2**32 - 1), "the meta has 4294967295 bytes"),
    _bad("meta one too large", RequestReader, _header(2, meta_size=65_537), "the meta has 65537 bytes"),
    _bad("meta that is no JSON", RequestReader, _header(2, meta_size=2) + b"{]", "the meta is not JSON"),
    _bad(
        "meta that is no object",
        RequestReader,
        _header(2, meta_size=2) + b"[]",
        "the meta is not a JSON object",
    ),
    _bad("a reply as a request", RequestReader, _header(0x82), "kind 0x82 belongs to a reply"),
    _bad(
        "a status in a request", RequestReader, _header(2, 200), "the status of a request must be 0, not 200"
    ),
    _bad("v1 after v2", RequestReader, b"\0\0\1", NO_HEADER, PING),
    _bad("v2 after v1", RequestReader, PING.wire[:1], AFTER_V1, V1_REQUEST),
    _bad("a byte after v1", RequestReader, b"x", AFTER_V1, V1_REQUEST),
    _good("v1 reply", ReplyReader, V1_REPLY),
    _good("v1 reply that is an error", ReplyReader, message_v2(0x82, 415, 0, {"code": "unsupported_format"})),
    _good("v2 reply with nothing", ReplyReader, PONG),
    _good("v2 reply with both", ReplyReader, RESIZED),
    _good("v2 error reply", ReplyReader, REFUSED),
    _good("v2 replies one after another", ReplyReader, RESIZED, REFUSED, PONG, RESIZED),
    _bad("nothing but zeros", ReplyReader, bytes(28), NO_HEADER),
    _bad("reply of another version", ReplyReader, _header(0x86, 200, version=1), "version 1 of the protocol"),
    _bad(
        "reply with meta of 4 GiB",
        ReplyReader,
        _header(0x82, 200, 2**32 - 1),
        "the meta has 4294967295 bytes",
    ),
    _bad("a request as a reply", ReplyReader, _header(6), "kind 0x06 belongs to a request"),
    _bad("reply without a status", ReplyReader, _header(0x86), "status 0 means neither"),
    _bad("reply of status 302", ReplyReader, _header(0x86, 302), "status 302 means neither"),
    _bad("reply of status 600", ReplyReader, _header(0x86, 600), "status 600 means neither"),
    _bad("error with a body", ReplyReader, _header(0x82, 500, body_size=9), "but has one of 9 bytes"),
    _bad("v1 reply after v2", ReplyReader, b"\0\1", NO_HEADER, PONG),
    _bad("a byte after a v1 reply", ReplyReader, b"x", AFTER_V1, V1_REPLY),
]


def _check(case: Case, recorder: Recorder, *more: Message) -> None:
    assert recorder.seen == [*case.events, *Stream(case.reader, more).seen]
    if case.error is None:
        assert recorder.error is None
    else:
        assert recorder.error is not None
        assert case.error in recorder.error


by_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@by_case
def test_a_case_fed_whole(case: Case) -> None:
    _check(case, run(case.reader, [case.wire]))


@by_case
def test_a_case_fed_byte_by_byte(case: Case) -> None:
    recorder = run(case.reader, single_bytes(case.wire[:-1]))
    assert recorder.error is None, "refused before the byte that shows the mistake"
    recorder.feed(case.wire[-1:])
    _check(case, recorder)


@by_case
def test_a_case_with_trailing_data(case: Case) -> None:
    trailing = PING if case.reader is RequestReader else PONG
    recorder = run(case.reader, [case.wire + trailing.wire])
    if case.error is None and recorder.reader.version == 1:
        assert recorder.seen == list(case.events)
        assert recorder.error == AFTER_V1
    elif case.error is None:
        _check(case, recorder, trailing)
    else:
        _check(case, recorder)


@by_case
def test_a_case_followed_by_the_end_of_the_stream(case: Case) -> None:
    _check(case, run(case.reader, [case.wire], eof=True))


@given(streams, cuts)
def test_any_message_survives_any_split(stream: Stream, cuts: list[int]) -> None:
    recorder = run(stream.reader, split(stream.wire, cuts), eof=True)
    assert recorder.error is None
    assert recorder.seen == stream.seen
    assert recorder.reader.between_messages


@given(streams)
def test_events_come_with_the_byte_that_completes_them(stream: Stream) -> None:
    recorder = Recorder(stream.reader())
    expected: list[MessageStarted | bytes | MessageEnded] = []
    for message in stream.messages:
        for byte in single_bytes(message.wire[:-1]):
            recorder.feed(byte)
            assert recorder.seen[-1:] != [MessageEnded()] or recorder.seen == expected
        recorder.feed(message.wire[-1:])
        expected.extend(message.seen)
        assert recorder.seen == expected


def _boundaries(stream: Stream) -> list[int]:
    """Where, in bytes from the start, a message starts or ends its body: found from the events alone."""
    recorder = Recorder(stream.reader())
    places, count = [], 0
    for place, byte in enumerate(single_bytes(stream.wire), start=1):
        recorder.feed(byte)
        markers = sum(not isinstance(seen, bytes) for seen in recorder.seen)
        if markers > count:
            places.append(place)
        count = markers
    return places


@given(streams, st.lists(st.integers(1, 64), min_size=1, max_size=5))
def test_wanted_never_runs_over_an_event_boundary(stream: Stream, reads: list[int]) -> None:
    boundaries = _boundaries(stream)
    recorder = Recorder(stream.reader())
    place = turn = 0
    while place < len(stream.wire):
        wanted = recorder.reader.wanted
        assert 0 < wanted <= min(boundary for boundary in boundaries if boundary > place) - place
        size = min(wanted, reads[turn % len(reads)])
        recorder.feed(stream.wire[place : place + size])
        place, turn = place + size, turn + 1
    assert recorder.seen == stream.seen
    assert recorder.reader.wanted == (0 if recorder.reader.version == 1 else 28)


@given(streams, st.integers(1, 300), st.lists(st.booleans(), min_size=1, max_size=4))
def test_a_body_read_elsewhere_gives_the_same_events(
    stream: Stream, most: int, elsewhere: list[bool]
) -> None:
    recorder = Recorder(stream.reader())
    place = turn = 0
    while place < len(stream.wire):
        piece = stream.wire[place : place + min(recorder.reader.wanted, most)]
        if recorder.reader.in_body and elsewhere[turn % len(elsewhere)]:
            recorder.record_body(piece)
            for event in recorder.reader.body_received(len(piece)):
                recorder.record(event)
        else:
            recorder.feed(piece)
        place, turn = place + len(piece), turn + 1
    recorder.eof()
    assert recorder.error is None
    assert recorder.seen == stream.seen


@st.composite
def mutated(draw: st.DrawFn) -> Stream:
    """A valid stream of which bytes were changed, taken out or put in, or of which the end is missing."""
    stream = draw(streams)
    wire = bytearray(stream.wire)
    for _ in range(draw(st.integers(1, 3))):
        # The first bytes are the headers, where a change matters most.
        place = draw(st.integers(0, min(len(wire), 80)) | st.integers(0, len(wire)))
        match draw(st.sampled_from(["change", "remove", "insert", "truncate"])):
            case "change":
                wire[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case "remove":
                del wire[place : place + draw(st.integers(1, 8))]
            case "insert":
                wire[place:place] = draw(st.binary(min_size=1, max_size=8))
            case _:
                del wire[place:]
    return Stream(stream.reader, (Message(bytes(wire), ()),))


_GARBAGE = st.binary(max_size=300) | st.binary(max_size=300).map(lambda data: b"\0\0\0\0VIPS\2" + data)

garbage = st.builds(
    lambda reader, wire: Stream(reader, (Message(wire, ()),)),
    st.sampled_from([RequestReader, ReplyReader]),
    _GARBAGE,
)


@given(mutated() | garbage, cuts)
def test_any_garbage_ends_in_a_protocol_error_only(stream: Stream, cuts: list[int]) -> None:
    # Any other exception than ProtocolError passes through the recorder and fails here.
    whole = run(stream.reader, [stream.wire], eof=True)
    pieces = run(stream.reader, split(stream.wire, cuts), eof=True)
    assert pieces.seen == whole.seen
    assert pieces.error == whole.error
    if whole.error is not None:
        _check_sticky(whole)
        _check_sticky(pieces)


def _check_sticky(recorder: Recorder) -> None:
    """A failed reader stays failed with the same words, whatever is done with it."""
    assert recorder.error is not None
    reader, seen, error = recorder.reader, list(recorder.seen), recorder.error
    assert reader.wanted == 0
    for data in (b"", b"\0", PING.wire, PONG.wire, V1_REQUEST.wire):
        recorder.error = None
        recorder.feed(data)
        assert recorder.error == error
    with pytest.raises(ProtocolError) as eof:
        reader.receive_eof()
    with pytest.raises(ProtocolError) as body:
        reader.body_received(1)
    assert str(eof.value) == str(body.value) == error
    assert recorder.seen == seen


@given(streams, st.data())
def test_a_truncated_message_is_an_error_at_the_end_of_the_stream(
    stream: Stream, data: st.DataObject
) -> None:
    ends = {0}
    for message in stream.messages:
        ends.add(max(ends) + len(message.wire))
    place = data.draw(st.integers(0, len(stream.wire) - 1))
    recorder = run(stream.reader, [stream.wire[:place]], eof=True)
    if place in ends:
        assert recorder.error is None
    else:
        assert recorder.error is not None
        assert recorder.error.startswith("the stream ended")
        _check_sticky(recorder)


def test_the_end_of_the_stream_says_what_is_missing() -> None:
    assert run(RequestReader, [V1_REQUEST.wire[:-2]], eof=True).error == (
        "the stream ended 2 bytes before the end of a body"
    )
    for size in (3, 12, 27, 28, 30):
        recorder = run(RequestReader, [RESIZE.wire[:size]], eof=True)
        assert recorder.error == "the stream ended within a header or its meta"


@pytest.mark.parametrize("reader", [RequestReader, ReplyReader])
def test_a_meta_over_the_limit_is_refused_with_the_last_byte_of_the_header(reader: ReaderClass) -> None:
    header = _header(2) if reader is RequestReader else _header(0x82, 200)
    header = header[:16] + (2**32 - 1).to_bytes(4, "big") + header[20:]
    recorder = run(reader, [header[:-1]])
    assert recorder.error is None
    recorder.feed(header[-1:])
    assert recorder.error == "the meta has 4294967295 bytes; 65536 are allowed"


def test_a_body_size_is_known_before_a_byte_of_it_is_read() -> None:
    recorder = run(RequestReader, [_header(2, body_size=2**64 - 1)])
    (started,) = recorder.seen
    assert isinstance(started, MessageStarted)
    assert started.body_size == recorder.reader.wanted == 2**64 - 1
    assert recorder.reader.in_body


def test_an_empty_v1_image_is_refused_with_the_twelfth_byte() -> None:
    wire = bytes.fromhex("00000000 00000320 00000258")
    recorder = run(RequestReader, [wire[:11]])
    assert recorder.error is None
    assert recorder.reader.wanted == 1
    recorder.feed(wire[11:])
    assert recorder.error == NOT_VIPS
    assert recorder.reader.version is None
    assert recorder.reader.header is None


@pytest.mark.parametrize(
    ("wire", "header"),
    [
        (_header(6, version=3), None),
        (_header(0x82), Header(0x82, 0, 5, 0, 0)),
        (_header(2, 200), Header(2, 200, 5, 0, 0)),
        (_header(2, meta_size=65_537), Header(2, 0, 5, 65_537, 0)),
        (_header(2, meta_size=2) + b"[]", Header(2, 0, 5, 2, 0)),
    ],
    ids=["another version", "a reply", "a status", "meta too large", "meta no object"],
)
def test_a_failed_reader_knows_the_header_to_be_answered(wire: bytes, header: Header | None) -> None:
    recorder = run(RequestReader, [PING.wire + wire])
    assert recorder.error is not None
    assert recorder.reader.header == header


def test_the_header_is_known_while_its_meta_arrives() -> None:
    recorder = run(RequestReader, [RESIZE.wire[:28]])
    assert recorder.seen == []
    assert recorder.reader.header == Header(Kind.RESIZE, 0, 7, len(RESIZE.wire) - 28 - 5, 5)
    recorder.feed(RESIZE.wire[28:])
    assert recorder.reader.header is None


@pytest.mark.parametrize("size", [0, -1, 6])
def test_more_of_a_body_than_is_due_is_a_bug_of_the_caller(size: int) -> None:
    recorder = run(RequestReader, [V1_REQUEST.wire[:12]])
    with pytest.raises(ValueError, match=f"{size} bytes were received, but only 5 of the body are missing"):
        recorder.reader.body_received(size)
    recorder.feed(V1_REQUEST.wire[12:])
    assert recorder.seen == list(V1_REQUEST.seen)


def test_body_bytes_outside_a_body_are_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="1 bytes were received, but only 0 of the body are missing"):
        RequestReader().body_received(1)


def test_the_state_is_true_while_an_event_is_handled() -> None:
    reader = RequestReader()
    states = [(reader.in_body, reader.wanted) for _ in reader.receive_data(RESIZE.wire)]
    assert states == [(True, 5), (False, 28), (False, 28)]


def test_the_versions_and_states_of_a_connection() -> None:
    reader = RequestReader()
    assert (reader.version, reader.between_messages, reader.finished, reader.wanted) == (
        None,
        True,
        False,
        12,
    )
    list(reader.receive_data(V1_REQUEST.wire[:11]))
    assert (reader.version, reader.between_messages, reader.finished, reader.wanted) == (
        None,
        False,
        False,
        1,
    )
    list(reader.receive_data(V1_REQUEST.wire[11:12]))
    assert (reader.version, reader.between_messages, reader.finished, reader.wanted) == (1, False, False, 5)
    list(reader.receive_data(V1_REQUEST.wire[12:]))
    assert (reader.version, reader.between_messages, reader.finished, reader.wanted) == (1, True, True, 0)


def test_a_body_is_not_copied() -> None:
    data = bytearray(V1_REQUEST.wire)
    reader = RequestReader()
    _, body, _ = reader.receive_data(data)
    data[-1] ^= 0xFF
    assert not isinstance(body, MessageStarted | MessageEnded)
    assert body.data[-1] == data[-1]


def test_a_version_1_header_behind_a_version_2_message_is_refused_at_its_first_byte() -> None:
    reader = RequestReader()
    assert len(list(reader.receive_data(pack_message(Kind.PING, 1)))) == 2
    with pytest.raises(ProtocolError, match="does not start with a zero"):
        list(reader.receive_data(b"\0\0\1"))
    assert reader.wanted == 0


@pytest.mark.parametrize("size", range(1, 28))
def test_the_beginning_of_a_second_header_is_not_refused(size: int) -> None:
    reader = RequestReader()
    list(reader.receive_data(pack_message(Kind.PING, 1)))
    assert list(reader.receive_data(pack_message(Kind.PING, 2)[:size])) == []
    assert len(list(reader.receive_data(pack_message(Kind.PING, 2)[size:]))) == 2
