import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.wire import json_values, run
from vipsrv.errors import REQUEST_ERRORS, BadRequest, Busy, InternalError, RequestError, TooLarge
from vipsrv.protocol import HEADER, Kind, MessageStarted, ReplyReader, pack_error, unpack_error


def _reply(data: bytes) -> MessageStarted:
    recorder = run(ReplyReader, [data], eof=True)
    assert recorder.error is None
    started = recorder.seen[0]
    assert isinstance(started, MessageStarted)
    return started


def test_the_bytes_of_an_error_reply() -> None:
    meta = b'{"code":"busy","message":"the queue is full","retryable":true,"retry_after_ms":250}'
    header = bytes.fromhex("00000000 56495053 02 82 01ad 00000007") + len(meta).to_bytes(4, "big") + bytes(8)
    assert pack_error(Kind.RESIZE, 7, Busy("the queue is full", retry_after_ms=250)) == header + meta


def test_the_place_of_a_bug_is_not_sent() -> None:
    assert b"secret" not in pack_error(Kind.RESIZE, 7, InternalError("a bug", where="secret.py:1 run"))


def test_a_version_1_client_sees_a_result_of_size_zero() -> None:
    assert pack_error(Kind.RESIZE, 0, BadRequest("no"))[:4] == bytes(4)


@pytest.mark.parametrize("error_class", REQUEST_ERRORS.values(), ids=lambda error: error.code)
@given(message=st.text(st.characters(), max_size=1000), retry_after_ms=st.none() | st.integers(0, 2**31 - 1))
def test_an_error_survives_the_wire(
    error_class: type[RequestError], message: str, retry_after_ms: int | None
) -> None:
    sent = error_class(message, retry_after_ms=retry_after_ms)
    reply = _reply(pack_error(Kind.INFO, 12, sent))
    assert (reply.kind, reply.request_id, reply.body_size) == (0x83, 12, 0)
    assert (reply.meta["code"], reply.meta["retryable"]) == (error_class.code, error_class.retryable)
    received = unpack_error(reply.status, reply.meta)
    assert type(received) is error_class
    assert received.message == str(received) == message
    assert received.retry_after_ms == retry_after_ms


@pytest.mark.parametrize("character", ["x", "é", "\U0001f5bc", "\0", "\ud800"])
def test_a_message_of_any_length_fits_the_meta(character: str) -> None:
    reply = _reply(pack_error(Kind.RESIZE, 1, TooLarge(character * 100_000)))
    assert reply.meta["message"] == character * 1000


def test_an_unknown_status_is_an_internal_error_that_names_it() -> None:
    error = unpack_error(418, {"code": "teapot", "message": "short and stout", "retry_after_ms": 9})
    assert type(error) is InternalError
    assert error.message == "status 418: short and stout"
    assert error.retry_after_ms == 9


@pytest.mark.parametrize(
    ("meta", "message", "retry_after_ms"),
    [
        ({}, "the server gave no reason", None),
        ({"message": None, "retry_after_ms": None}, "the server gave no reason", None),
        ({"message": ["a"], "retry_after_ms": "5"}, "the server gave no reason", None),
        ({"message": "a", "retry_after_ms": True}, "a", None),
        ({"message": "a", "retry_after_ms": -1}, "a", None),
        ({"message": "a", "retry_after_ms": 2**31}, "a", None),
        ({"message": "a", "retry_after_ms": 1.5}, "a", None),
        ({"message": "a" * 2000, "retry_after_ms": 0}, "a" * 1000, 0),
    ],
)
def test_an_invalid_value_counts_as_missing(
    meta: dict[str, object], message: str, retry_after_ms: int | None
) -> None:
    error = unpack_error(429, meta)
    assert type(error) is Busy
    assert (error.message, error.retry_after_ms) == (message, retry_after_ms)


@given(
    st.integers(400, 599),
    st.dictionaries(st.sampled_from(["code", "message", "retry_after_ms"]), json_values),
)
def test_any_meta_makes_an_error(status: int, meta: dict[str, object]) -> None:
    error = unpack_error(status, meta)
    assert type(error) is REQUEST_ERRORS.get(status, InternalError)


def test_a_message_nested_as_deep_as_json_allows_makes_an_error() -> None:
    nested = _deepest_list()
    assert unpack_error(400, {"message": nested}).message == "the server gave no reason"


def _deepest_list() -> object:
    depth = 2
    while depth < 100_000:
        try:
            json.loads("[" * depth + "]" * depth)
        except RecursionError:
            break
        depth *= 2
    return json.loads("[" * (depth // 2) + "]" * (depth // 2))


def test_every_code_is_a_stable_word() -> None:
    for error_class in REQUEST_ERRORS.values():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", error_class.code)
        assert len(pack_error(Kind.RESIZE, 1, error_class("x"))) > HEADER.size
