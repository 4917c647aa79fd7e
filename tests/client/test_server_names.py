"""``ServerNames``: a list of servers as it is written, and what its host names stand for."""

import socket

import pytest

from vipsrv.address import Address
from vipsrv.client.server_names import (
    RESOLVE_AFTER_FAILURE,
    RESOLVE_EVERY,
    ServerNames,
    parse_server,
    parse_servers,
    resolve,
    servers_of_environment,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:1", Address("a", 1)),
        ("a", Address("a", 65432)),
        ("10.0.0.1", Address("10.0.0.1", 65432)),
        ("::1", Address("::1", 65432)),
        ("[::1]", Address("::1", 65432)),
        ("[::1]:7", Address("::1", 7)),
        ("tls://b:1", Address("b", 1, tls=True)),
        ("tls://b", Address("b", 65432, tls=True)),
        ("unix:/x", Address(path="/x")),
    ],
)
def test_one_server(text: str, expected: Address) -> None:
    assert parse_server(text) == expected


@pytest.mark.parametrize(
    "text", ["", "a:b", "a:0", "a:65536", ":1", "tls://", "unix:", "http://a:1", "https://a", "a/b:1"]
)
def test_what_is_no_server(text: str) -> None:
    with pytest.raises(ValueError, match=r"servers: .*(is not|the port|speak)"):
        parse_servers(["a:1", text])


def test_a_list_holds_each_server_once_and_at_least_one() -> None:
    assert parse_servers([" a:1", "a:1 ", "b"]) == (Address("a", 1), Address("b", 65432))
    with pytest.raises(ValueError, match="servers: names no server"):
        parse_servers([])
    with pytest.raises(TypeError, match="must be a list"):
        parse_servers("a:1")


def test_the_variable() -> None:
    assert servers_of_environment({"VIPSRV_SERVERS": "a:1, b"}) == (Address("a", 1), Address("b", 65432))
    assert servers_of_environment({"VIPSRV_SERVERS": " "}) is None
    assert servers_of_environment({}) is None
    with pytest.raises(ValueError, match="VIPSRV_SERVERS: '' is not"):
        servers_of_environment({"VIPSRV_SERVERS": "a,,b"})


def test_numbers_and_paths_are_never_resolved() -> None:
    names = ServerNames(parse_servers(["10.0.0.1:1", "::1", "unix:/x"]), clock=Clock())
    assert names.known
    assert names.due() == ()
    assert list(map(str, names.addresses())) == ["10.0.0.1:1", "[::1]:65432", "unix:/x"]


def test_a_name_stands_for_all_its_addresses_and_keeps_its_port_and_its_certificate() -> None:
    names = ServerNames(parse_servers(["tls://img:7", "10.0.0.9:1"]), clock=Clock())
    assert not names.known
    assert names.due() == (Address("img", 7, tls=True),)
    found = names.answers({Address("img", 7, tls=True): ["10.0.0.1", "fe80::1"]})
    assert list(map(str, found)) == ["tls://10.0.0.1:7", "tls://[fe80::1]:7", "10.0.0.9:1"]
    assert names.tls_name(found[0]) == "img"
    assert names.tls_name(found[2]) == "10.0.0.9"
    assert names.known


def test_two_names_of_one_address_are_one_server() -> None:
    names = ServerNames(parse_servers(["a:1", "b:1", "10.0.0.1:1"]), clock=Clock())
    found = names.answers({name: ["10.0.0.1"] for name in names.due()})
    assert list(map(str, found)) == ["10.0.0.1:1"]


def test_names_are_resolved_again_from_time_to_time_and_soon_after_a_failure() -> None:
    clock = Clock()
    names = ServerNames(parse_servers(["img"]), clock=clock)
    assert names.due()
    assert not names.due()
    names.failed()
    assert not names.due(), "it was resolved a moment ago"
    clock.now += RESOLVE_AFTER_FAILURE
    assert names.due()
    clock.now += RESOLVE_AFTER_FAILURE
    assert not names.due(), "nothing has failed since"
    clock.now += RESOLVE_EVERY
    assert names.due()


def test_a_name_that_cannot_be_resolved_keeps_its_addresses() -> None:
    (name,) = parse_servers(["img:1"])
    names = ServerNames([name], clock=Clock())
    assert names.answers({name: OSError("no DNS")}) == []
    assert names.known
    assert str(names.faults[name]) == "no DNS"
    assert names.answers({name: ["10.0.0.1"]}) == [Address("10.0.0.1", 1)]
    assert names.faults == {}
    assert names.answers({name: OSError("no DNS")}) == [Address("10.0.0.1", 1)]


def test_the_system_resolves_numbers_to_themselves_and_says_what_is_wrong() -> None:
    assert resolve("127.0.0.1", 1) == ["127.0.0.1"]
    with pytest.raises(OSError):  # noqa: PT011 - the text is that of the system
        resolve("a..b", 1)


def test_addresses_of_every_form_become_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 7)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 7, 0, 3)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 7)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert resolve("img", 7) == ["10.0.0.1", "fe80::1%3"]
