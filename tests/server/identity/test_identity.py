"""The name and the limits of an identity."""

from typing import Any

import pytest

from vipsrv.options import Format
from vipsrv.pipeline.formats.registry import all_formats
from vipsrv.server.identity.identity import FORMATS, IdentityLimits, check_name

ALL = {
    "requests_per_second": 0.5,
    "bytes_per_second": 1_000_000,
    "in_flight": 4,
    "max_pixels": 10_000_000,
    "formats": ["avif", "jpeg"],
    "priority": 2.5,
}


def test_all_limits_can_be_written_to_a_table_and_read_again() -> None:
    limits = IdentityLimits.from_table(ALL)
    assert limits.formats == frozenset({"avif", "jpeg"})
    assert limits.to_table() == ALL


def test_no_limits_are_an_empty_table() -> None:
    assert IdentityLimits.from_table({}) == IdentityLimits()
    assert IdentityLimits().to_table() == {}


def test_jpg_is_jpeg() -> None:
    assert IdentityLimits.from_table({"formats": ["jpg"]}).formats == frozenset({"jpeg"})


def test_the_formats_that_may_be_named_are_all_that_can_be_read_or_written() -> None:
    assert {format_.name for format_ in all_formats()} | set(Format) - {"auto"} == FORMATS


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"requests_per_minute": 5}, "requests_per_minute: is no limit; limits are requests_per_second, "),
        ({"requests_per_second": 0}, "requests_per_second: must be from "),
        ({"requests_per_second": -1}, "requests_per_second: must be from "),
        ({"requests_per_second": float("inf")}, "requests_per_second: must be a number"),
        ({"requests_per_second": float("nan")}, "requests_per_second: must be a number"),
        ({"requests_per_second": "5"}, "requests_per_second: must be a number"),
        ({"bytes_per_second": True}, "bytes_per_second: must be a number"),
        ({"bytes_per_second": 0.5}, "bytes_per_second: must be from 1 to "),
        ({"in_flight": 0}, "in_flight: must be from 1 to "),
        ({"in_flight": 1.5}, "in_flight: must be a whole number"),
        ({"max_pixels": True}, "max_pixels: must be a whole number"),
        ({"formats": []}, "formats: must name at least one format"),
        ({"formats": "jpeg"}, "formats: must be a list of names"),
        ({"formats": [1]}, "formats: must be a list of names"),
        ({"formats": ["jpeg", "jepg"]}, "formats: 'jepg' is unknown; known are avif, bmp"),
        ({"priority": 0}, "priority: must be from 0.01 to 100, not 0"),
        ({"priority": 101}, "priority: must be from 0.01 to 100, not 101"),
        ({"\x1b[31m": 1}, r"\\x1b\[31m: is no limit"),
    ],
)
def test_an_invalid_limit_is_refused_by_its_name(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        IdentityLimits.from_table(table)


@pytest.mark.parametrize("name", ["a", "Shop-1", "camera.example.org", "bob@example.org", "x" * 64])
def test_valid_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "-x", ".x", "x" * 65, "a b", "a\n", "a\x1b", "ü", 'a"', "a/b", "a:b"])
def test_invalid_names(name: str) -> None:
    with pytest.raises(ValueError, match="is not a valid name: up to 64"):
        check_name(name)
