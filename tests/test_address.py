"""Addresses as texts."""

import pytest

from vipsrv.address import Address


@pytest.mark.parametrize("text", ["127.0.0.1:80", "[::1]:80", "localhost:0", "unix:/run/a b"])
def test_an_address_is_printed_as_it_was_given(text: str) -> None:
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize("text", ["", "80", ":80", "host:", "host:http", "host:65536", "unix:"])
def test_anything_else_is_not_an_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|no path"):
        Address.parse(text)
