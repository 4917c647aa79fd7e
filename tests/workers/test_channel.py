"""The layout of the channel: packing and unpacking agree, and anything else is a ``ChannelError``."""

import json
import struct
from dataclasses import replace
from operator import attrgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipsrv.errors import (
    REQUEST_ERRORS,
    BadRequest,
    Cancelled,
    CorruptImage,
    DeadlineExceeded,
    InternalError,
    RequestError,
    TooLarge,
    UnsupportedFormat,
)
from vipsrv.options import Format, ImageInfo, OutputInfo
from vipsrv.workers.channel import (
    CHANNEL_VERSION,
    JOB_SIZE,
    MAX_OUTPUTS,
    MAX_THREADS,
    READY_SIZE,
    REPLY_SIZE,
    TAG_SIZE,
    Carrier,
    ChannelError,
    Digest,
    JobHead,
    JobLimits,
    Operation,
    Ready,
    ReplyHead,
    ResultDigest,
)

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
SIDE = st.integers(1, 2**32 - 1)

SOURCES = st.builds(
    ImageInfo,
    format=st.from_regex(r"[a-z][a-z0-9-]{0,15}", fullmatch=True),
    width=SIDE,
    height=SIDE,
    pages=SIDE,
    has_alpha=st.booleans(),
    orientation=st.integers(1, 8),
    size=st.just(1234),
)
OUTPUTS = st.builds(
    OutputInfo,
    width=SIDE,
    height=SIDE,
    format=st.sampled_from([format_.value for format_ in Format if format_ is not Format.AUTO]),
    quality=st.integers(0, 100),
    size=st.integers(1, 2**64 - 1),
    ssim=st.none() | st.floats(0, 1),
)
JOBS = st.builds(
    JobHead,
    operation=st.sampled_from(Operation),
    job_id=U64,
    carrier=st.sampled_from(Carrier),
    options_size=U32,
    image_size=U64,
    deadline_ms=U32,
    admitted=st.booleans(),
)

READY = Ready(pid=1, readers={"png": "libvips"}, writers=("jpeg",))
SOURCE = ImageInfo(format="png", width=3, height=2, pages=1, has_alpha=True, orientation=6, size=1234)
OUTPUT = OutputInfo(width=30, height=20, format="jpeg", quality=85, size=700)
WORKER_ERRORS: set[type[RequestError]] = {
    BadRequest,
    TooLarge,
    UnsupportedFormat,
    CorruptImage,
    Cancelled,
    InternalError,
    DeadlineExceeded,
}


def with_field(data: bytes, offset: int, layout: str, value: object) -> bytes:
    changed = bytearray(data)
    struct.pack_into(layout, changed, offset, value)
    return bytes(changed)


def test_a_handshake_is_unpacked_as_it_was_packed() -> None:
    readers = {"jpeg": "libvips jpegload 8.18.7", "png": "libvips pngload 8.18.7"}
    ready = Ready(pid=4321, readers=readers, writers=("jpeg", "webp"), layers=("landlock-7", "seccomp"))
    assert len(ready.pack()) == READY_SIZE
    assert Ready.unpack(ready.pack()) == ready


def test_a_worker_that_is_not_confined_has_no_layers() -> None:
    assert Ready.unpack(READY.pack()).layers == ()


def test_the_name_of_a_layer_has_plain_characters_only() -> None:
    ready = Ready(pid=1, readers={"png": "libvips"}, writers=("jpeg",), layers=("\x1b[2J",))
    with pytest.raises(ChannelError, match="forbidden characters"):
        Ready.unpack(ready.pack())


@given(JOBS)
def test_the_head_of_a_job_is_unpacked_as_it_was_packed(head: JobHead) -> None:
    assert len(head.pack()) == JOB_SIZE
    assert JobHead.unpack(head.pack()) == head


@given(U64, SOURCES, st.lists(OUTPUTS, max_size=MAX_OUTPUTS).map(tuple))
def test_the_head_of_a_reply_is_unpacked_as_it_was_packed(
    job_id: int, source: ImageInfo, outputs: tuple[OutputInfo, ...]
) -> None:
    reply = ReplyHead(job_id=job_id, source=source, outputs=outputs)
    assert len(reply.pack()) == REPLY_SIZE
    assert ReplyHead.unpack(reply.pack(), image_size=1234) == reply


@given(
    U64,
    st.lists(st.tuples(OUTPUTS, st.binary(min_size=TAG_SIZE, max_size=TAG_SIZE), U32), max_size=MAX_OUTPUTS),
)
def test_digests_are_unpacked_as_they_were_packed(
    job_id: int, results: list[tuple[OutputInfo, bytes, int]]
) -> None:
    reply = ReplyHead(
        job_id=job_id,
        source=SOURCE,
        outputs=tuple(output for output, _, _ in results),
        digests=tuple(ResultDigest(tag=tag, crc=crc) for _, tag, crc in results),
    )
    assert len(reply.pack()) == REPLY_SIZE
    assert ReplyHead.unpack(reply.pack(), image_size=1234, digests=True) == reply


def test_a_reply_without_digests_is_the_same_as_ever() -> None:
    reply = ReplyHead(job_id=1, source=SOURCE, outputs=(OUTPUT,))
    assert ReplyHead.unpack(reply.pack(), image_size=1234, digests=True).digests == (
        ResultDigest(tag=bytes(TAG_SIZE), crc=0),
    )
    assert ReplyHead.unpack(reply.pack(), image_size=1234).digests == ()


def test_the_wish_for_digests_travels_in_the_options() -> None:
    options = Digest.TAG_AND_CRC.add_to(JobLimits(max_pixels=9).add_to(b'{"width":1}'))
    taken = json.loads(options)
    assert Digest.take_from(taken) is Digest.TAG_AND_CRC
    assert JobLimits.take_from(taken).max_pixels == 9
    assert taken == {"width": 1}
    assert Digest.take_from(taken) is None


def test_the_memory_of_a_heavy_job_is_unpacked_as_it_was_packed() -> None:
    reply = ReplyHead(job_id=9, needs=3 << 30, needs_ms=2500)
    assert ReplyHead.unpack(reply.pack(), image_size=1) == reply


@pytest.mark.parametrize("kind", sorted(WORKER_ERRORS, key=attrgetter("status")))
def test_an_error_is_unpacked_as_it_was_packed(kind: type[RequestError]) -> None:
    reply = ReplyHead.unpack(ReplyHead(job_id=9, error=kind("so it is")).pack(), image_size=1)
    assert (reply.job_id, reply.source, reply.outputs) == (9, None, ())
    assert type(reply.error) is kind
    assert reply.error.message == "so it is"


def test_the_place_of_a_bug_is_cut_and_made_printable() -> None:
    where = "ValueError: \x1b[2J\n; encode.py:60 _write < resize.py:88 resize" + " < child.py:9 run" * 100
    data = ReplyHead(job_id=9, error=InternalError("a bug", where=where)).pack()
    assert len(data) == REPLY_SIZE
    error = ReplyHead.unpack(data, image_size=1).error
    assert isinstance(error, InternalError)
    assert error.message == "a bug"
    assert error.where.startswith("ValueError: ?[2J?; encode.py:60 _write < resize.py:88 resize < child.py:9")
    assert 200 < len(error.where) <= REPLY_SIZE
    assert error.where.isprintable()


@pytest.mark.parametrize(
    "kind", sorted(set(REQUEST_ERRORS.values()) - WORKER_ERRORS, key=attrgetter("status"))
)
def test_a_worker_cannot_send_errors_of_the_gateway(kind: type[RequestError]) -> None:
    with pytest.raises(ChannelError, match=f"the status {kind.status}"):
        ReplyHead.unpack(ReplyHead(job_id=9, error=kind("let me in")).pack(), image_size=1)


def test_a_message_is_cut_and_made_printable() -> None:
    hostile = "bad\x1b[2J\r\nfile \N{SNOWMAN}" + "x" * 500
    error = ReplyHead.unpack(ReplyHead(job_id=1, error=CorruptImage(hostile)).pack(), image_size=1).error
    assert error is not None
    assert error.message.startswith("bad?[2J??file ?xxx")
    assert len(error.message) == 400
    assert error.message.isprintable()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (with_field(READY.pack(), 0, "4s", b"HTTP"), "not a handshake"),
        (
            with_field(READY.pack(), 4, "!H", CHANNEL_VERSION + 1),
            f"version {CHANNEL_VERSION + 1} of the channel, not {CHANNEL_VERSION}",
        ),
        (replace(READY, readers={}).pack(), "name"),
        (replace(READY, readers={"PNG": "libvips"}).pack(), "name"),
        (replace(READY, writers=("png", "a b")).pack(), "name"),
    ],
)
def test_a_malformed_handshake_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ChannelError, match=message):
        Ready.unpack(data)


@pytest.mark.parametrize(
    ("offset", "layout", "value"),
    [(0, "4s", b"VRPL"), (4, "B", 0), (4, "B", 4), (5, "B", 3), (7, "B", 0), (7, "B", MAX_THREADS + 1)],
)
def test_a_malformed_job_is_refused(offset: int, layout: str, value: object) -> None:
    good = JobHead(operation=Operation.RESIZE, job_id=1).pack()
    with pytest.raises(ChannelError, match="head of a job"):
        JobHead.unpack(with_field(good, offset, layout, value))


@pytest.mark.parametrize(
    ("offset", "layout", "value"),
    [
        (0, "4s", b"VJOB"),
        (4, "!H", 200),
        (4, "!H", 999),
        (14, "16s", b"no name"),
        (30, "!I", 0),  # width
        (34, "!I", 0),  # height
        (38, "!I", 0),  # pages
        (43, "B", 0),  # orientation
        (43, "B", 9),
        (456, "B", MAX_OUTPUTS + 1),
        (457, "!I", 0),  # the result's width
        (461, "!I", 0),
        (465, "B", 101),  # quality
        (466, "B", len(Format) - 1),  # no format has this number; "auto" has none
        (467, "!Q", 0),  # size
    ],
)
def test_a_malformed_reply_is_refused(offset: int, layout: str, value: object) -> None:
    good = ReplyHead(job_id=1, source=SOURCE, outputs=(OUTPUT,)).pack()
    with pytest.raises(ChannelError):
        ReplyHead.unpack(with_field(good, offset, layout, value), image_size=1234)


@given(st.binary(max_size=500))
def test_any_bytes_are_a_handshake_or_a_channel_error(data: bytes) -> None:
    with pytest.raises(ChannelError):
        Ready.unpack(data.ljust(READY_SIZE, b"\0"))


@given(st.binary(min_size=REPLY_SIZE - 4, max_size=REPLY_SIZE - 4))
def test_any_bytes_are_a_reply_or_a_channel_error(data: bytes) -> None:
    try:
        reply = ReplyHead.unpack(b"VRPL" + data, image_size=7)
    except ChannelError:
        return
    assert [reply.error is not None, reply.source is not None, reply.needs > 0].count(True) == 1


@given(st.binary(min_size=JOB_SIZE - 4, max_size=JOB_SIZE - 4))
def test_any_bytes_are_a_job_or_a_channel_error(data: bytes) -> None:
    try:
        head = JobHead.unpack(b"VJOB" + data)
    except ChannelError:
        return
    assert head.pack() == b"VJOB" + data


@given(
    st.builds(
        JobLimits,
        max_pixels=st.none() | st.integers(1, 2**53),
        formats=st.none() | st.frozensets(st.sampled_from(list(Format)).map(str), min_size=1),
    ),
    st.sampled_from([{}, {"width": 80, "height": 60}, {"outputs": [{"width": 1}, {"width": 2}]}]),
)
def test_the_limits_of_a_client_travel_in_the_options(limits: JobLimits, options: dict[str, object]) -> None:
    data = json.dumps(options, separators=(",", ":")).encode() if options else b""
    read = json.loads(limits.add_to(data))
    assert JobLimits.take_from(read) == limits
    assert read == options


def test_options_without_limits_have_none() -> None:
    assert JobLimits.take_from({"width": 80}).is_empty
