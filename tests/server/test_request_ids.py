"""The ids that a client gives to its request for the log."""

from typing import Any

import pytest

from vipsrv.errors import BadRequest
from vipsrv.options import MAX_REQUEST_ID, is_traceparent
from vipsrv.server.request_ids import NO_IDS, RequestIds, take_request_ids

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


def test_a_meta_without_ids_is_left_as_it_is() -> None:
    meta: dict[str, Any] = {"width": 9}
    ids, rest = take_request_ids(meta)
    assert ids is NO_IDS
    assert rest is meta


def test_ids_are_taken_out_of_the_meta() -> None:
    meta = {"width": 9, "request_id": "a", "traceparent": TRACEPARENT}
    assert take_request_ids(meta) == (RequestIds("a", TRACEPARENT), {"width": 9})
    assert take_request_ids({"request_id": None}) == (NO_IDS, {})


@pytest.mark.parametrize("value", ["", "x" * (MAX_REQUEST_ID + 1), 7, True, ["a"], {}])
def test_an_impossible_request_id_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest, match=r"^request_id: must "):
        take_request_ids({"request_id": value})


def test_a_traceparent_that_is_no_text_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"^traceparent: must be a text"):
        take_request_ids({"traceparent": 7})


@pytest.mark.parametrize(
    "text",
    [
        "",
        TRACE,
        TRACEPARENT.upper(),
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"{TRACEPARENT}-more",
        f"01-{TRACE}-{PARENT}-01-\u202e",
        f"01-{TRACE}-{PARENT}-01-{'x' * 100}",
        f"{TRACEPARENT}\n",
    ],
)
def test_what_is_no_traceparent_is_ignored(text: str) -> None:
    assert not is_traceparent(text)
    assert take_request_ids({"traceparent": text}) == (NO_IDS, {})


@pytest.mark.parametrize("text", [TRACEPARENT, f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like"])
def test_a_traceparent_of_this_and_of_later_versions_is_known(text: str) -> None:
    assert is_traceparent(text)


def test_a_tracestate_goes_with_its_traceparent() -> None:
    ids, rest = take_request_ids({"traceparent": TRACEPARENT, "tracestate": "a=1,b=2", "width": 9})
    assert (ids.traceparent, ids.tracestate, rest) == (TRACEPARENT, "a=1,b=2", {"width": 9})


@pytest.mark.parametrize(
    "ids", [{"tracestate": "a=1"}, {"traceparent": TRACEPARENT, "tracestate": "a" * 513}]
)
def test_a_tracestate_that_is_alone_or_too_long_is_ignored(ids: dict[str, str]) -> None:
    assert take_request_ids(ids)[0].tracestate is None


def test_a_tracestate_that_is_no_text_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"^tracestate: must be a text"):
        take_request_ids({"traceparent": TRACEPARENT, "tracestate": ["a=1"]})
