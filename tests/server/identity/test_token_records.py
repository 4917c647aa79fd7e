"""The format of a token file: what is written is read again, and what is wrong is named with its line."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.identity.records import CREATED, as_text, record_of
from vipsrv.errors import SettingsError
from vipsrv.server.identity.identity import FORMATS, IdentityLimits
from vipsrv.server.identity.token_records import TokenRecord, parse_tokens
from vipsrv.server.identity.tokens import Token, new_token

PATH = Path("tokens.toml")

TIMES = st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda time: time.replace(microsecond=0)
)
NUMBERS = st.one_of(st.floats(1, 2.0**53), st.integers(1, 2**53))
LIMITS = st.builds(
    IdentityLimits,
    requests_per_second=st.none() | st.floats(1e-4, 2.0**53),
    bytes_per_second=st.none() | NUMBERS,
    in_flight=st.none() | st.integers(1, 2**53),
    max_pixels=st.none() | st.integers(1, 2**53),
    formats=st.none() | st.frozensets(st.sampled_from(sorted(FORMATS)), min_size=1),
    priority=st.floats(0.01, 100),
)
RECORDS = st.builds(
    TokenRecord,
    id=st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=8, max_size=64),
    # Each its own name: tokens of one identity have the same limits.
    name=st.integers(0).map("name{}".format),
    digest=st.binary(min_size=32, max_size=32),
    created=TIMES,
    expires=st.none() | TIMES,
    revoked=st.none() | TIMES,
    limits=LIMITS,
)


def parse(text: str) -> tuple[TokenRecord, ...]:
    return parse_tokens(text.encode(), PATH)


@given(
    st.lists(
        RECORDS,
        max_size=5,
        unique_by=(lambda record: record.id, lambda record: record.name, lambda record: record.digest),
    ),
)
def test_what_is_written_is_read_again(records: list[TokenRecord]) -> None:
    assert parse(as_text(records)) == tuple(records)


def test_an_empty_file_has_no_tokens() -> None:
    assert parse("") == parse("# only a comment\n") == ()


def test_times_in_other_zones_are_read() -> None:
    (record,) = parse(
        as_text([record_of(new_token())]).replace("2026-11-27T09:00:00Z", "2026-11-27 11:00:00+02:00")
    )
    assert record.created == CREATED
    assert record.created == datetime(2026, 11, 27, 11, tzinfo=timezone(timedelta(hours=2)))


def test_the_state_of_a_token() -> None:
    now = CREATED.timestamp()
    assert record_of(new_token()).state(now) == "valid"
    assert record_of(new_token(), expires=CREATED).state(now - 1) == "valid"
    assert record_of(new_token(), expires=CREATED).state(now) == "expired"
    assert record_of(new_token(), expires=CREATED, revoked=CREATED).state(now) == "revoked"


GOOD = as_text([record_of(Token("abcdefgh", "secret"))])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[abcdefgh]", "[abcdefgh", r"the token file is not valid TOML: .*\(at line 3, column"),
        ("[abcdefgh]", "[short]", r":3: \[short\]: is not an id"),
        ("[abcdefgh]", "[ABCDEFGH]", r":3: \[ABCDEFGH\]: is not an id"),
        ("[abcdefgh]", "[[abcdefgh]]", r": \[abcdefgh\]: must be a table"),
        ("[abcdefgh]", "abcdefgh = 1\n[bcdefghi]", r": \[abcdefgh\]: must be a table"),
        ('name = "shop"', "", r":3: \[abcdefgh\]: name: is missing"),
        ('name = "shop"', "name = 5", r"\[abcdefgh\]: name: must be text"),
        ('name = "shop"', 'name = "a b"', r"\[abcdefgh\]: name: 'a b' is not a valid name"),
        ('name = "shop"', 'nane = "shop"', r"\[abcdefgh\]: nane: is unknown; known are name, sha256"),
        ('sha256 = "', 'sha256 = "0', r"\[abcdefgh\]: sha256: must be 64 digits"),
        ('sha256 = "', 'sha256 = "x" # "', r"\[abcdefgh\]: sha256: must be 64 digits"),
        ("2026-11-27T09:00:00Z", "2026-11-27", r"\[abcdefgh\]: created: must be a time with its zone"),
        (
            "2026-11-27T09:00:00Z",
            "2026-11-27T09:00:00",
            r"\[abcdefgh\]: created: must be a time with its zone",
        ),
        ("created", 'expires = "never"\ncreated', r"\[abcdefgh\]: expires: must be a time with its zone"),
        ("created", "limits = 5\ncreated", r"\[abcdefgh\]: limits: must be a table"),
        (
            "created",
            "limits = { in_flight = 0 }\ncreated",
            r"\[abcdefgh\]: limits: in_flight: must be from 1",
        ),
        ("created", "limits = { speed = 1 }\ncreated", r"\[abcdefgh\]: limits: speed: is no limit"),
        ('name = "shop"', 'name = "\\u001b"', r"\[abcdefgh\]: name: '\\\\x1b' is not a valid name"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_table_and_key(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(
        SettingsError, match=f"^tokens.toml{message}" if message[0] == ":" else message
    ) as error:
        parse("# one\n# two\n" + GOOD.replace(old, new))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("tokens.toml:")


def test_a_file_that_is_no_text() -> None:
    with pytest.raises(SettingsError, match=r"^tokens.toml:2: the token file is not UTF-8$"):
        parse_tokens(b"# one\n# \xff\n", PATH)


def test_the_tokens_of_one_identity_have_the_same_limits() -> None:
    first = record_of(Token("abcdefgh", "a"), "shop", limits={"in_flight": 1})
    same = record_of(Token("bcdefghi", "b"), "shop", limits={"in_flight": 1})
    other = record_of(Token("cdefghij", "c"), "shop", limits={"in_flight": 2})
    revoked = record_of(Token("defghijk", "d"), "shop", limits={"in_flight": 3}, revoked=CREATED)
    assert len(parse(as_text([first, same, revoked]))) == 3
    with pytest.raises(
        SettingsError, match=r"\[cdefghij\]: limits: differ from those of \[abcdefgh\]; both are "
    ):
        parse(as_text([revoked, first, other]))


def test_no_two_tokens_have_the_same_secret() -> None:
    copied = [record_of(Token("abcdefgh", "a"), "shop"), record_of(Token("bcdefghi", "a"), "archive")]
    with pytest.raises(SettingsError, match=r"\[bcdefghi\]: sha256: is that of \[abcdefgh\]; each token has"):
        parse(as_text(copied))
