"""The query of a target: strict percent-encoding."""

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipsrv.errors import BadRequest
from vipsrv.server.api.query import MAX_PARAMETERS, parse_query

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=5))
def test_what_python_encodes_is_decoded(pairs: list[tuple[str, str]]) -> None:
    assert parse_query(urlencode(pairs)) == pairs
    assert parse_query(urlencode(pairs, quote_via=quote)) == pairs


def test_empty_parts_are_ignored() -> None:
    assert parse_query("") == []
    assert parse_query("&width=8&&height=&") == [("width", "8"), ("height", "")]
    assert parse_query("a=b=c") == [("a", "b=c")]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("width", "width: has no value; write width=VALUE"),
        ("a=%", "a%: is not"),
        ("a=%4", "is not percent-encoded"),
        ("a=%zz", "is not percent-encoded"),
        ("%GG=1", "is not percent-encoded"),
        ("a=\xe9", "is not percent-encoded"),
        ("a=%FF", "is not percent-encoded UTF-8"),
        ("a=%C0%80", "is not percent-encoded UTF-8"),
        ("a=%ED%A0%80", "is not percent-encoded UTF-8"),
        ("&".join(["a=1"] * (MAX_PARAMETERS + 1)), f"has {MAX_PARAMETERS + 1} parameters"),
    ],
)
def test_an_invalid_query_is_refused(query: str, message: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        parse_query(query)
    assert message.removeprefix("a%: ") in refusal.value.message
    assert refusal.value.message.isprintable()
