import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.wire import json_values
from vipsrv.errors import ProtocolError
from vipsrv.protocol import HEADER, MAX_META_SIZE, V1_REPLY, V1_REQUEST, Header, Kind, pack_message
from vipsrv.protocol.frames import unpack_meta

HEADERS = st.builds(
    Header,
    kind=st.integers(0, 2**8 - 1),
    status=st.integers(0, 2**16 - 1),
    request_id=st.integers(0, 2**32 - 1),
    meta_size=st.integers(0, 2**32 - 1),
    body_size=st.integers(0, 2**64 - 1),
)

# By hand from the byte table: zero, magic, version, kind, status, request id, meta size, body size.
HEADER_BYTES = bytes.fromhex("00000000 56495053 02 82 01a5 00000007 00000102 0000000300000004")
HEADER_FIELDS = Header(kind=0x82, status=421, request_id=7, meta_size=258, body_size=0x3_0000_0004)


def test_the_sizes_of_the_headers_are_those_of_the_specification() -> None:
    assert (V1_REQUEST.size, V1_REPLY.size, HEADER.size) == (12, 4, 28)


def test_the_kinds_are_those_of_the_specification() -> None:
    assert {kind.name: kind.value for kind in Kind} == {
        "HELLO": 1,
        "RESIZE": 2,
        "INFO": 3,
        "UPLOAD_STATUS": 4,
        "CANCEL": 5,
        "PING": 6,
    }


def test_each_field_of_a_header_lies_at_its_offset() -> None:
    assert HEADER_FIELDS.pack() == HEADER_BYTES
    assert Header.unpack(HEADER_BYTES) == HEADER_FIELDS


@given(HEADERS)
def test_a_header_survives_the_wire(header: Header) -> None:
    assert Header.unpack(header.pack()) == header


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, 1, "does not start with a zero and the letters VIPS"),
        (3, 1, "does not start with a zero and the letters VIPS"),
        (4, ord("v"), "does not start with a zero and the letters VIPS"),
        (7, ord("s"), "does not start with a zero and the letters VIPS"),
        (8, 1, "version 1 of the protocol is not supported"),
        (8, 3, "version 3 of the protocol is not supported"),
    ],
)
def test_an_invalid_header_is_refused(offset: int, value: int, message: str) -> None:
    data = bytearray(HEADER_BYTES)
    data[offset] = value
    with pytest.raises(ProtocolError, match=message):
        Header.unpack(data)


@given(st.binary(min_size=28, max_size=28))
def test_any_28_bytes_are_a_header_or_a_protocol_error(data: bytes) -> None:
    try:
        header = Header.unpack(data)
    except ProtocolError:
        assert data[:9] != b"\0\0\0\0VIPS\2"
    else:
        assert header.pack() == data


def test_a_meta_size_up_to_the_limit_is_accepted() -> None:
    Header(Kind.PING, 0, 1, MAX_META_SIZE, 0).check_meta_size()


@pytest.mark.parametrize("size", [MAX_META_SIZE + 1, 2**32 - 1])
def test_a_meta_size_over_the_limit_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError, match=f"the meta has {size} bytes; 65536 are allowed"):
        Header(Kind.PING, 0, 1, size, 0).check_meta_size()


@given(st.dictionaries(st.text(), json_values))
def test_a_meta_survives_the_wire(meta: dict[str, Any]) -> None:
    message = pack_message(Kind.RESIZE, 9, meta, body_size=5)
    header = Header.unpack(message[:28])
    assert header == Header(Kind.RESIZE, 0, 9, len(message) - 28, 5)
    assert unpack_meta(message[28:]) == meta


def test_a_message_without_meta_is_only_a_header() -> None:
    assert pack_message(Kind.PING, 1) == Header(Kind.PING, 0, 1, 0, 0).pack()


def test_a_meta_that_is_too_large_is_not_packed() -> None:
    room = MAX_META_SIZE - len('{"x":""}')
    assert len(pack_message(Kind.HELLO, 1, {"x": "a" * room})) == 28 + MAX_META_SIZE
    with pytest.raises(ProtocolError, match="the meta has 65537 bytes; 65536 are allowed"):
        pack_message(Kind.HELLO, 1, {"x": "a" * (room + 1)})


def test_a_value_that_json_cannot_express_is_not_packed() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        pack_message(Kind.PING, 1, {"ms": float("nan")})


def test_an_empty_meta_is_an_empty_object() -> None:
    assert unpack_meta(b"") == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b" ", "not JSON"),
        (b"{", "not JSON"),
        (b"{}{}", "not JSON"),
        (b"\0\0", "not JSON"),
        (b"\xff\xfe{\0}\0", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        ('{"a":"é"}'.encode("latin-1"), "not JSON"),
        ('{"width":1}'.encode("utf-16-le"), "not JSON"),
        ('{"a":"\ud800"}'.encode("utf-8", "surrogatepass"), "not JSON"),
        (b'{"a":NaN}', "NaN is not a JSON value"),
        (b'{"a":-Infinity}', "-Infinity is not a JSON value"),
        (b'{"a":1' + b"0" * 5000 + b"}", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b'{"a":' * 10_000, "not JSON"),
        (b"null", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'"width"', "not a JSON object"),
        (b"800", "not a JSON object"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_meta_that_is_not_a_json_object_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        unpack_meta(data)


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_object_or_a_protocol_error(data: bytes) -> None:
    try:
        meta = unpack_meta(data)
    except ProtocolError:
        return
    assert isinstance(meta, dict)


def test_escaped_lone_surrogates_survive() -> None:
    assert unpack_meta(pack_message(Kind.HELLO, 1, {"client": "\ud800"})[28:]) == {"client": "\ud800"}


def test_a_field_out_of_range_is_a_bug_of_the_caller() -> None:
    with pytest.raises(struct.error):
        pack_message(Kind.PING, 2**32)
