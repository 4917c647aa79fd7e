"""The server that a client connects to: from its arguments, the environment and the defaults."""

from pathlib import Path

import pytest

from tests.support.running_server import RunningServer
from vipsrv.client import AsyncClient, Client
from vipsrv.client.server_address import choose_listener, choose_server, server_address

EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - nothing listens on it here


@pytest.mark.parametrize(
    ("host", "port", "environment", "address", "configured"),
    [
        (None, None, {}, "127.0.0.1:65432", False),
        (None, None, {"VIPSRV_HOST": "", "VIPSRV_PORT": ""}, "127.0.0.1:65432", False),
        ("there", None, {}, "there:65432", True),
        (None, 9, {}, "127.0.0.1:9", True),
        (None, None, {"VIPSRV_HOST": "there"}, "there:65432", True),
        (None, None, {"VIPSRV_PORT": "9"}, "127.0.0.1:9", True),
        (None, None, {"VIPSRV_HOST": "there", "VIPSRV_PORT": "9"}, "there:9", True),
        ("here", None, {"VIPSRV_HOST": "there", "VIPSRV_PORT": "9"}, "here:9", True),
        (None, 7, {"VIPSRV_HOST": "there", "VIPSRV_PORT": "9"}, "there:7", True),
        (None, None, {"VIPSRV_HOST": "unix:/run/socket", "VIPSRV_PORT": "9"}, "unix:/run/socket", True),
        ("unix:/run/socket", 9, {}, "unix:/run/socket", True),
        (None, 7, {"VIPSRV_HOST": "unix:/run/socket"}, "127.0.0.1:7", True),
        # As Kubernetes sets it for a Service named vipsrv.
        (None, None, {"VIPSRV_PORT": "tcp://10.0.0.1:65432"}, "127.0.0.1:65432", False),
        ("::1", None, {}, "[::1]:65432", True),
    ],
)
def test_arguments_win_over_the_environment_over_the_defaults(
    host: str | None, port: int | None, environment: dict[str, str], address: str, *, configured: bool
) -> None:
    choice = choose_server(host, port, environment)
    assert (str(choice.address), choice.configured) == (address, configured)


@pytest.mark.parametrize(
    ("host", "port", "environment", "address"),
    [
        (None, None, {}, "127.0.0.1:65432"),
        (None, None, {"VIPSRV_HOST": EVERY_ADDRESS, "VIPSRV_PORT": "9"}, "127.0.0.1:9"),
        (None, None, {"VIPSRV_HOST": "::"}, "[::1]:65432"),
        (None, None, {"VIPSRV_HOST": EVERY_ADDRESS, "VIPSRV_LISTEN": "unix:/run/socket"}, "unix:/run/socket"),
        (None, None, {"VIPSRV_LISTEN": " [::]:7 , unix:/run/socket"}, "[::1]:7"),
        (None, None, {"VIPSRV_LISTEN": "tls://[::]:7,unix:/run/socket"}, "unix:/run/socket"),
        (None, None, {"VIPSRV_LISTEN": "tls://[::]:7,tls://localhost:8"}, "tls://[::1]:7"),
        (None, None, {"VIPSRV_LISTEN": "http://[::]:7,tls://a:8,https://b:9"}, "tls://a:8"),
        (None, None, {"VIPSRV_LISTEN": "", "VIPSRV_HOST": "there"}, "there:65432"),
        (None, None, {"VIPSRV_PORT": "tcp://10.0.0.1:65432", "VIPSRV_HOST": "::"}, "[::1]:65432"),
        # What is given wins over all listeners of the environment.
        ("there", None, {"VIPSRV_LISTEN": "unix:/run/socket"}, "there:65432"),
        (None, 9, {"VIPSRV_LISTEN": "unix:/run/socket", "VIPSRV_HOST": EVERY_ADDRESS}, "127.0.0.1:9"),
    ],
)
def test_the_listener_of_a_server_with_the_same_environment(
    host: str | None, port: int | None, environment: dict[str, str], address: str
) -> None:
    assert str(choose_listener(host, port, environment)) == address


@pytest.mark.parametrize("listen", ["foo", "unix:", ",unix:/a", "127.0.0.1:0", "http://127.0.0.1:80"])
def test_a_listener_that_cannot_be_reached(listen: str) -> None:
    with pytest.raises(ValueError, match="VIPSRV_LISTEN: "):
        choose_listener(environment={"VIPSRV_LISTEN": listen})


@pytest.mark.parametrize("port", ["x", "0", "65536", "-1", "6 5", "٣", "9" * 5000])
def test_an_invalid_port_in_the_environment(port: str) -> None:
    with pytest.raises(ValueError, match="VIPSRV_PORT: must be a port from 1 to 65535, not"):
        choose_server(environment={"VIPSRV_PORT": port})
    assert choose_server(port=9, environment={"VIPSRV_PORT": port}).address.port == 9


@pytest.mark.parametrize("text", ["http://a:1", "https://a:1", "http+unix:/a", "ops://a:1", "ops+unix:/a"])
def test_an_address_for_http_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="address for HTTP, which this client does not speak"):
        server_address(None, None, text)
    with pytest.raises(ValueError, match="address for HTTP, which this client does not speak"):
        choose_server(environment={"VIPSRV_HOST": text})


def test_an_address_wins_over_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIPSRV_HOST", "there")
    assert str(server_address(None, None, "unix:/run/socket")) == "unix:/run/socket"


async def test_both_clients_use_the_environment(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIPSRV_HOST", server.host)
    monkeypatch.setenv("VIPSRV_PORT", str(server.port))
    with Client() as client:
        assert client.ping() > 0
    async with AsyncClient() as async_client:
        assert await async_client.ping() > 0


def test_a_unix_socket_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunningServer("--workers", "1", "--listen", f"unix:{tmp_path / 'socket'}") as server:
        monkeypatch.setenv("VIPSRV_HOST", server.listeners[0])
        with Client() as client:
            assert client.ping() > 0
