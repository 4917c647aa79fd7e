"""Text of unknown origin: everything that is not printed as a character is shown as an escape."""

import sys

import pytest

from vipsrv.printable import printable, printable_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a plain text: é 日本 🙂", "a plain text: é 日本 🙂"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("two\nlines\r\tand\u2028more\u2029", r"two\nlines\r\tand\u2028more\u2029"),
        ("\u202egnp.exe \u2066\u200f\u061c", r"\u202egnp.exe \u2066\u200f\u061c"),
        ("\x7f\x9b31m\x85", r"\x7f\x9b31m\x85"),
        ("\ufeff\u200b\xad", r"\ufeff\u200b\xad"),
        ("\U000e0041", r"\U000e0041"),
        (b"caf\xe9.jpg".decode(errors="surrogateescape"), r"caf\xe9.jpg"),
        ("\ud800", r"\ud800"),
        ("", ""),
    ],
)
def test_what_is_not_printable_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_no_character_is_left_that_a_terminal_would_obey() -> None:
    shown = printable("".join(map(chr, range(sys.maxunicode + 1))))
    assert shown.isprintable()
    assert shown.encode()


def test_every_string_of_a_json_value_is_made_printable() -> None:
    assert printable_json({"\x1b": ["\x1b", {"\x07": 1}], "n": 1.5, "t": True, "0": None}, 3) == {
        r"\x1b": [r"\x1b", {r"\x07": 1}],
        "n": 1.5,
        "t": True,
        "0": None,
    }


@pytest.mark.parametrize("value", [[[[]]], {"a": {"b": {}}}, [{"a": []}]])
def test_deeper_values_are_refused(value: object) -> None:
    assert printable_json(value, 3) == value
    with pytest.raises(ValueError, match="within each other"):
        printable_json(value, 2)
