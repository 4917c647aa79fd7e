"""Addresses as texts."""

import pytest

from vipsrv.address import Address, is_service_link


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:80",
        "[::1]:80",
        "localhost:0",
        "unix:/run/a b",
        "tls://localhost:80",
        "http://127.0.0.1:80",
        "https://[::1]:80",
        "http+unix:/run/socket",
        "ops://127.0.0.1:80",
        "ops+unix:/run/socket",
    ],
)
def test_an_address_is_printed_as_it_was_given(text: str) -> None:
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "80",
        ":80",
        "host:",
        "host:http",
        "host:65536",
        "unix:",
        "http+unix:",
        "http://:80",
        "http://host:80/",
        "ftp://host:80",
    ],
)
def test_anything_else_is_not_an_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|no path"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("listener", "there"),
    [
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("[::]:80", "[::1]:80"),
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("unix:/run/socket", "unix:/run/socket"),
    ],
)
def test_where_a_server_on_this_machine_is_reached(listener: str, there: str) -> None:
    assert str(Address.parse(listener).reachable()) == there


@pytest.mark.parametrize(
    ("text", "linked"),
    [("tcp://10.96.0.1:65432", True), ("udp://[fd00::1]:1", True), ("65432", False), ("", False)],
)
def test_a_port_that_kubernetes_has_set(text: str, *, linked: bool) -> None:
    assert is_service_link(text) is linked
