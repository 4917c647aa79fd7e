"""The `vipsrv` command as a user types it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.support import bare_client
from tests.support.running_server import RunningServer, wait_until
from vipsrv.server.settings import ServerSettings
from vipsrv.version import __version__

EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - the port is free only as long as the test runs


def vipsrv(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vipsrv", *arguments],
        capture_output=True,
        text=True,
        timeout=bare_client.SECONDS,
        check=False,
        env={**os.environ, **settings},
    )


def test_version() -> None:
    assert vipsrv("--version").stdout == f"vipsrv {__version__}\n"


def test_every_setting_is_a_flag_with_its_default() -> None:
    text = " ".join(vipsrv("serve", "--help").stdout.split())
    for name, setting in ServerSettings.model_fields.items():
        flag = name.replace("_", "-")
        assert (f"--no-{flag} " if setting.default is True else f"--{flag} ") in text


def test_a_wrong_value_is_one_line_that_names_the_flag() -> None:
    ended = vipsrv("serve", "--port", "70000", "--quality", "101")
    assert ended.returncode == 2
    assert [line.split()[1] for line in ended.stderr.splitlines()] == ["--port:", "--quality:"]


def test_an_invalid_listener() -> None:
    ended = vipsrv("serve", "--listen", "unix:/a", "--listen", "foo")
    assert ended.returncode == 2
    assert ended.stderr == (
        "vipsrv: --listen: 'foo' is not HOST:PORT, [IPV6]:PORT, tls://HOST:PORT, http://HOST:PORT, "
        "https://HOST:PORT, unix:/path or http+unix:/path\n"
    )


def test_formats_lists_readers_with_their_libraries_and_writers() -> None:
    ended = vipsrv("formats", "--formats", "png,bmp")
    assert ended.returncode == 0
    lines = [line.split() for line in ended.stdout.splitlines()]
    written = lines.index(["written"])
    assert lines[0] == ["read"]
    assert [words[:3] for words in lines[1:written]] == [
        ["png", "libvips", "pngload"],
        ["bmp", "vipsrv", __version__],
    ]
    # The formats to read do not limit those to write.
    assert ["jpeg"] in lines[written + 1 :]


def test_formats_lists_everything_by_default() -> None:
    ended = vipsrv("formats")
    assert {"jpeg", "png", "webp", "tiff", "gif", "bmp", "pnm", "ico"} <= set(ended.stdout.split())


@pytest.mark.parametrize("command", [("formats",), ("serve", "--port", "0")])
def test_formats_of_an_unknown_name(command: tuple[str, ...]) -> None:
    ended = vipsrv(*command, "--formats", "jpeg,xyz")
    assert ended.returncode == 1
    assert "xyz is unknown; known are jpeg" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_ping(server: RunningServer) -> None:
    ended = vipsrv("ping", "--port", str(server.port))
    assert ended.returncode == 0
    assert f"127.0.0.1:{server.port} answered in" in ended.stdout


def test_ping_without_a_server() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        ended = vipsrv("ping", "--port", str(closed.getsockname()[1]))
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "0"],
        ["--port", "70000"],
        ["--timeout", "0"],
        ["--timeout", "-1"],
        ["--timeout", "inf"],
        ["--timeout", "nan"],
        ["--host", "unix:"],
    ],
)
def test_ping_with_invalid_arguments(arguments: list[str]) -> None:
    ended = vipsrv("ping", *arguments)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


def test_ping_of_a_unix_socket_and_of_ipv6(start_server: StartServer, tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    there = f"unix:{tmp_path / 'socket'}"
    server = start_server("--listen", there, "--listen", "[::1]:0")
    for ended, where in (
        (vipsrv("ping", VIPSRV_HOST=there), there),
        (vipsrv("ping", "--host", "::1", "--port", str(server.port)), f"[::1]:{server.port}"),
    ):
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.startswith(f"{where} answered in ")


def test_ping_follows_the_listener_of_the_environment(start_server: StartServer, tmp_path: Path) -> None:
    there = f"unix:{tmp_path / 'socket'}"
    server = start_server("--workers", "1", "--listen", there, "--listen", "0.0.0.0:0")
    port = server.listeners[1].rpartition(":")[2]
    for environment, where in (
        ({"VIPSRV_LISTEN": f"{there},0.0.0.0:{port}"}, there),
        ({"VIPSRV_LISTEN": f"0.0.0.0:{port},{there}"}, f"127.0.0.1:{port}"),
        ({"VIPSRV_HOST": EVERY_ADDRESS, "VIPSRV_PORT": port}, f"127.0.0.1:{port}"),
    ):
        ended = vipsrv("ping", **environment)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.startswith(f"{where} answered in ")
        assert not ended.stderr


def test_every_ipv6_address_and_every_ipv4_address_of_the_machine(start_server: StartServer) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    only_ipv6 = start_server("--workers", "1", "--host", "::", "--port", "0")
    assert vipsrv("ping", VIPSRV_HOST="::", VIPSRV_PORT=str(only_ipv6.port)).returncode == 0
    with pytest.raises(ConnectionRefusedError):
        bare_client.connect(only_ipv6.port)
    port = only_ipv6.port
    only_ipv6.stop()
    both = start_server("--workers", "1", "--listen", f"[::]:{port}", "--listen", f"0.0.0.0:{port}")
    assert len(both.listeners) == 2
    for host in ("127.0.0.1", "::1"):
        assert vipsrv("ping", "--host", host, "--port", str(port)).returncode == 0


@pytest.mark.parametrize("command", [("serve", "--workers", "0"), ("ping", "--host", "unix:")])
def test_a_port_that_kubernetes_has_set_is_passed_over_with_one_line(command: tuple[str, ...]) -> None:
    plain, linked = vipsrv(*command), vipsrv(*command, VIPSRV_PORT="tcp://10.96.0.1:65432")
    assert linked.returncode == plain.returncode
    mentioned, *rest = linked.stderr.splitlines()
    assert "VIPSRV_PORT=tcp://10.96.0.1:65432 is passed over" in mentioned
    assert "enableServiceLinks: false" in mentioned
    assert rest == plain.stderr.splitlines()


@pytest.mark.parametrize("level", ["loud", ""])
def test_an_invalid_log_level(level: str) -> None:
    ended = vipsrv("serve", "--log-level", level)
    assert ended.returncode == 2
    assert "--log-level" in ended.stderr


def test_the_log_level_may_come_from_the_environment() -> None:
    ended = vipsrv("serve", VIPSRV_LOG_LEVEL="loud")
    assert ended.returncode == 2
    assert (
        "VIPSRV_LOG_LEVEL: Input should be 'debug', 'info', 'warning' or 'error', not 'loud'" in ended.stderr
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_server_whose_standard_descriptors_are_closed(tmp_path: Path, closed: str) -> None:
    path = tmp_path / "socket"
    command = f'exec "$0" -m vipsrv serve --workers 1 --listen "unix:$1" {closed}'
    with subprocess.Popen(["/bin/sh", "-c", command, sys.executable, str(path)]) as process:
        try:
            # The socket file exists before the workers have started and the server listens.
            wait_until(
                lambda: (
                    process.poll() is not None or vipsrv("ping", "--host", f"unix:{path}").returncode == 0
                ),
                "the server's answer",
            )
            process.terminate()
            assert process.wait(bare_client.SECONDS) == 0
        finally:
            process.kill()


def test_until_stdin_closes_with_a_closed_standard_input() -> None:
    command = 'exec "$0" -m vipsrv serve --workers 1 --port 0 --until-stdin-closes <&-'
    ended = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable],
        capture_output=True,
        text=True,
        timeout=bare_client.SECONDS,
        check=False,
    )
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_server_that_cannot_print_its_address() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [
                sys.executable,
                "-m",
                "vipsrv",
                "serve",
                "--port",
                "0",
                "--workers",
                "1",
                "--log-level",
                "error",
            ],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=bare_client.SECONDS,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
        )
    assert ended.returncode == 1
    assert ended.stderr == "vipsrv: the addresses could not be printed: No space left on device\n"
