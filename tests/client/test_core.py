"""The core of both clients without a socket: what it matches, ignores and refuses."""

import json
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipsrv.client.core import FINISH_IF_LEFT, MAX_META_DEPTH, ClientCore, PendingRequest
from vipsrv.client.requests import (
    HELLO,
    INFO,
    PING,
    ClientRequest,
    ProtocolVersion,
    resize_request,
    version_1_request,
)
from vipsrv.errors import BadRequest, Busy, ConnectionLost, ProtocolError
from vipsrv.options import ResizeOptions
from vipsrv.protocol import REPLY, Kind, RequestReader, pack_error, pack_message


def new_core(protocol: ProtocolVersion = 2) -> ClientCore:
    return ClientCore(protocol, "there")


def start(core: ClientCore, request: Any = PING, size: int = 0) -> PendingRequest:
    return core.start(request, size, lambda: None)


def reply_to(pending: PendingRequest, body: bytes = b"", meta: dict[str, Any] | None = None) -> bytes:
    head = pack_message(pending.kind | REPLY, pending.request_id, meta, status=200, body_size=len(body))
    return head + body


def cancelled_id(message: bytes) -> int:
    (started, _) = RequestReader().receive_data(message)
    assert started.kind == Kind.CANCEL  # type: ignore[union-attr]
    return int(started.meta["request_id"])  # type: ignore[union-attr]


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
    st.integers(1, 50),
)
def test_replies_in_any_order_and_split_go_to_their_requests(
    bodies: list[bytes], random: Any, piece: int
) -> None:
    core = new_core()
    done: list[None] = []
    request = version_1_request(1, 1)
    requests = [core.start(request, len(body), lambda: done.append(None)) for body in bodies]
    replies = {
        pending: reply_to(pending, body, {"n": len(body)})
        for pending, body in zip(requests, bodies, strict=True)
    }
    order = list(requests)
    random.shuffle(order)
    wire = b"".join(replies[pending] for pending in order)
    for at in range(0, len(wire), piece):
        core.receive_data(wire[at : at + piece])
    assert len(done) == len(bodies)
    for pending, body in zip(requests, bodies, strict=True):
        reply = pending.result()
        assert (reply.body, reply.meta, reply.received) == (body, {"n": len(body)}, len(replies[pending]))
    assert core.received == len(wire)
    assert core.usable


@given(st.binary(min_size=1, max_size=400), st.integers(1, 50), st.sampled_from([1, 2]))
def test_any_garbage_ends_every_request_once(garbage: bytes, piece: int, protocol: ProtocolVersion) -> None:
    core = new_core(protocol)
    ended: list[int] = []
    request = version_1_request(1, 1)
    pending = core.start(request, 1, lambda: ended.append(1))
    for at in range(0, len(garbage), piece):
        core.receive_data(garbage[at : at + piece])
    core.receive_eof()
    assert ended == [1]
    assert core.closed
    assert pending.done
    if pending.error is not None:
        assert isinstance(pending.error, (ProtocolError, ConnectionLost))
    else:  # version 1 has no mark: some garbage is a reply
        assert protocol == 1
        assert len(garbage) >= 4 + struct.unpack("!I", garbage[:4])[0]


def test_request_ids_wrap_and_skip_those_in_use() -> None:
    core = ClientCore(2, "there", max_id=4)
    first, second, third = (start(core) for _ in range(3))
    assert [first.request_id, second.request_id, third.request_id] == [1, 2, 3]
    core.receive_data(reply_to(second))
    assert [start(core).request_id for _ in range(2)] == [4, 2]


def test_an_abandoned_request_is_cancelled_and_its_reply_ignored() -> None:
    core = new_core()
    first, second = (start(core, version_1_request(1, 1), 5) for _ in range(2))
    cancel = core.abandon(first)
    assert cancel is not None
    assert cancelled_id(cancel) == first.request_id
    core.receive_data(reply_to(first, b"late"))
    core.receive_data(
        pack_message(Kind.CANCEL | REPLY, second.request_id + 1, {"cancelled": False}, status=200)
    )
    core.receive_data(reply_to(second, b"mine"))
    assert not first.done
    assert second.result().body == b"mine"
    core.receive_data(reply_to(first, b"again"))
    assert core.closed  # one reply was due, not two


def test_no_cancel_is_sent_twice_or_after_the_reply_or_in_version_1() -> None:
    core = new_core()
    answered, abandoned = start(core), start(core)
    core.receive_data(reply_to(answered))
    assert core.abandon(answered) is None
    assert core.abandon(abandoned) is not None
    assert core.abandon(abandoned) is None
    old = new_core(1)
    assert old.abandon(start(old)) is None


def test_a_retired_connection_is_over_after_the_last_reply() -> None:
    core = new_core()
    first, large = start(core), start(core, INFO, 10 * FINISH_IF_LEFT)
    core.receive_data(pack_error(Kind.INFO, large.request_id, Busy("later")))
    assert core.stop_sending(large)
    core.end_sending(complete=False)
    assert not core.usable
    assert not core.over
    core.receive_data(reply_to(first))
    assert core.over


def test_a_server_that_is_about_to_close_gets_no_further_request() -> None:
    core = new_core()
    first, second = start(core), start(core)
    core.receive_data(reply_to(first, meta={"closing": True}))
    assert (core.usable, core.superseded, core.over) == (False, True, False)
    core.receive_data(reply_to(second))
    assert second.reply is not None
    assert core.over


def test_a_refused_request_is_sent_to_its_end_if_little_is_left() -> None:
    core = new_core()
    pending = start(core, INFO, FINISH_IF_LEFT + 1)
    assert not core.stop_sending(pending)
    core.receive_data(pack_error(Kind.INFO, pending.request_id, Busy("later")))
    assert core.stop_sending(pending)
    assert core.over  # whoever sends it has to be woken
    pending.unsent -= 1
    assert not core.stop_sending(pending)
    assert not core.over
    core.end_sending(complete=True)
    assert core.usable


@pytest.mark.parametrize("answered_before", [False, True])
@pytest.mark.parametrize("part", [0, 1])
def test_only_requests_on_an_idle_connection_may_be_resent(*, answered_before: bool, part: int) -> None:
    core = new_core()
    if answered_before:
        core.receive_data(reply_to(start(core)))
    requests = [start(core), start(core)]
    if part:
        core.receive_data(reply_to(requests[0])[:part])
    core.lost("gone")
    assert [one.may_resend for one in requests] == [answered_before and not part] * 2


def test_a_closed_connection_is_superseded() -> None:
    core = new_core()
    started = start(core)
    assert not core.superseded
    core.receive_eof()
    assert started.error is not None
    assert core.superseded
    assert core.over


def test_a_retired_connection_is_superseded() -> None:
    core = new_core()
    start(core)
    core.retire()
    assert core.superseded


def test_a_request_on_a_connection_closed_at_once_fails() -> None:
    core = new_core()
    core.receive_eof()
    assert not core.superseded
    pending = start(core)
    with pytest.raises(ConnectionLost):
        pending.result()
    assert not pending.may_resend


@pytest.mark.parametrize("lost_before", [False, True])
def test_closing_the_client_ends_every_request(*, lost_before: bool) -> None:
    core = new_core()
    core.receive_data(reply_to(start(core)))
    if lost_before:
        core.receive_eof()
    in_flight = start(core)
    core.close()
    assert not core.superseded
    late = start(core)
    for pending in {late} if lost_before else {in_flight, late}:
        assert not pending.may_resend
        with pytest.raises(ConnectionLost, match="the client was closed"):
            pending.result()


def announcing(size: int, protocol: ProtocolVersion) -> bytes:
    if protocol == 1:
        return struct.pack("!I", size)
    return pack_message(Kind.RESIZE | REPLY, 1, status=200, body_size=size)


MOST_FOR_ONE_PIXEL = version_1_request(1, 1).max_body


@pytest.mark.parametrize(
    ("protocol", "size"),
    [(2, MOST_FOR_ONE_PIXEL + 1), (2, 2**62), (1, MOST_FOR_ONE_PIXEL + 1), (1, 2**32 - 1)],
)
def test_a_reply_that_is_too_large_is_refused_by_its_header(protocol: ProtocolVersion, size: int) -> None:
    core = new_core(protocol)
    pending = start(core, version_1_request(1, 1), 5)
    core.receive_data(announcing(size, protocol))
    assert core.closed
    with pytest.raises(ProtocolError, match=f"{size} bytes; {MOST_FOR_ONE_PIXEL} are allowed"):
        pending.result()


@pytest.mark.parametrize("protocol", [1, 2])
def test_the_largest_reply_is_accepted(protocol: ProtocolVersion) -> None:
    core = new_core(protocol)
    start(core, version_1_request(1, 1), 5)
    core.receive_data(announcing(MOST_FOR_ONE_PIXEL, protocol))
    assert not core.closed


def test_a_border_may_make_a_reply_larger() -> None:
    alone, with_border, as_large = (
        resize_request(options, {}).max_body
        for options in (
            ResizeOptions(width=20, height=30),
            ResizeOptions(width=20, height=30, pad=(1, 200, 3, 40)),
            ResizeOptions(width=260, height=34),
        )
    )
    assert alone < with_border == as_large


@pytest.mark.parametrize("protocol", [1, 2])
def test_the_caller_may_set_a_lower_bound(protocol: ProtocolVersion) -> None:
    core = ClientCore(protocol, "peer", max_reply_size=1000)
    pending = start(core, version_1_request(1, 1), 5)
    core.receive_data(announcing(1001, protocol))
    with pytest.raises(ProtocolError, match="1001 bytes; 1000 are allowed"):
        pending.result()


@pytest.mark.parametrize("request_", [HELLO, INFO, PING])
def test_only_a_resize_is_answered_by_a_body(request_: ClientRequest) -> None:
    core = new_core()
    pending = start(core, request_, 5)
    core.receive_data(pack_message(request_.kind | REPLY, 1, status=200, body_size=1))
    with pytest.raises(ProtocolError, match="1 bytes; 0 are allowed"):
        pending.result()


def test_the_reply_to_an_abandoned_request_is_bounded_and_not_kept() -> None:
    core = new_core()
    for size in (MOST_FOR_ONE_PIXEL, MOST_FOR_ONE_PIXEL + 1):
        abandoned, other = start(core, version_1_request(1, 1)), start(core)
        assert core.abandon(abandoned)
        head = pack_message(Kind.RESIZE | REPLY, abandoned.request_id, status=200, body_size=size)
        wire = head + bytes(size)
        tracemalloc.start()
        try:
            core.receive_data(wire)
            assert tracemalloc.get_traced_memory()[1] < size // 2
        finally:
            tracemalloc.stop()
        assert other.done is (size > MOST_FOR_ONE_PIXEL)


@pytest.mark.parametrize("protocol", [1, 2])
def test_memory_grows_with_what_arrives(protocol: ProtocolVersion) -> None:
    core = new_core(protocol)
    start(core, resize_request(None, {"width": 8000}), 5)
    tracemalloc.start()
    try:
        core.receive_data(announcing(2**30, protocol))
        core.receive_data(bytes(1000))
        assert not core.closed
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("protocol", [1, 2])
def test_http_is_recognised_however_it_is_cut(protocol: ProtocolVersion) -> None:
    core = new_core(protocol)
    pending = start(core, version_1_request(1, 1), 5)
    for part in (b"H", b"TT", b"P/1.1 400 Bad Request\r\n\r\n"):
        core.receive_data(part)
    with pytest.raises(ProtocolError, match="speaks HTTP, not the protocol of vipsrv"):
        pending.result()


def test_what_the_server_says_is_made_printable() -> None:
    core = new_core()
    pending, refused = start(core), start(core)
    hostile = "\x1b]0;owned\x07 \u202e \r\n\u2028\udcff"
    core.receive_data(
        pack_message(Kind.PING | REPLY, pending.request_id, {hostile: [{"a": hostile}, 1, None]}, status=200)
        + pack_error(Kind.PING, refused.request_id, BadRequest(hostile))
    )
    shown = r"\x1b]0;owned\x07 \u202e \r\n\u2028\xff"
    assert pending.result().meta == {shown: [{"a": shown}, 1, None]}
    with pytest.raises(BadRequest) as caught:
        refused.result()
    assert str(caught.value) == shown


@pytest.mark.parametrize(
    ("wire", "shown"),
    [
        (b'{"a":"[[[[[[[[[[[[[[[[[[{{{{"}', "[" * 18 + "{" * 4),
        ('{"a":"ä \u4e2d"}'.encode(), "ä \u4e2d"),
        ('{"a":"\u202e"}'.encode(), "\\u202e"),
        (b'{"a":"\\u001b"}', "\\x1b"),
        (b'{"a":"\\\\x1b"}', "\\x1b"),
        (b'{"a":"\x7f"}', "\\x7f"),
        (b'{\n\t"a":\r"b"}', "b"),
    ],
    ids=["brackets", "letters", "unprintable", "escaped", "a backslash", "delete", "spaces"],
)
def test_a_text_of_the_server(wire: bytes, shown: str) -> None:
    core = new_core()
    pending = start(core)
    core.receive_data(pack_message(Kind.PING | REPLY, pending.request_id, wire, status=200))
    assert pending.result().meta == {"a": shown}


@pytest.mark.parametrize("levels", [MAX_META_DEPTH, MAX_META_DEPTH + 1])
def test_the_most_levels_of_a_meta(levels: int) -> None:
    core = new_core()
    pending = start(core)
    nested = b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"
    core.receive_data(pack_message(Kind.PING | REPLY, pending.request_id, nested, status=200))
    assert (pending.error is None) == (levels <= MAX_META_DEPTH)


def test_a_meta_of_many_levels_is_refused() -> None:
    core = new_core()
    pending = start(core)
    nested = b'{"a":' + b"[" * 500 + b"]" * 500 + b"}"
    core.receive_data(pack_message(Kind.PING | REPLY, pending.request_id, nested, status=200))
    with pytest.raises(ProtocolError, match="lists and objects within each other"):
        pending.result()


@pytest.mark.parametrize(
    ("protocol", "sent", "received", "words"),
    [
        (2, False, False, "before it had received the request; if it speaks version 1 only"),
        (2, True, False, "closed by the server before it replied$"),
        (2, True, True, "before the reply was complete$"),
        (2, False, True, "before the reply was complete$"),
        (1, False, False, "closed by the server before it replied$"),
    ],
)
def test_the_message_for_a_closed_connection(
    protocol: ProtocolVersion, *, sent: bool, received: bool, words: str
) -> None:
    core = new_core(protocol)
    pending = start(core, INFO, 5)
    if sent:
        core.end_sending(complete=True)
    if received:
        core.receive_data(reply_to(pending)[:9])
    core.receive_eof()
    with pytest.raises(ConnectionLost, match=words):
        pending.result()


def test_a_hello_names_the_client() -> None:
    core = new_core()
    head = start(core, HELLO).head
    assert json.loads(head[28:])["client"].startswith("vipsrv/")


def test_the_result_of_an_unfinished_request_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="not ended"):
        start(new_core()).result()
