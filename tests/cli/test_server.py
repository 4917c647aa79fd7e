"""The `vipsrv` command as a user types it."""

import socket
import subprocess
import sys

import pytest

from tests import bare_client
from tests.running_server import RunningServer
from vipsrv.server.settings import ServerSettings
from vipsrv.version import __version__


def vipsrv(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vipsrv", *arguments],
        capture_output=True,
        text=True,
        timeout=bare_client.SECONDS,
        check=False,
    )


def test_version() -> None:
    assert vipsrv("--version").stdout == f"vipsrv {__version__}\n"


def test_every_setting_is_a_flag_with_its_default() -> None:
    text = " ".join(vipsrv("serve", "--help").stdout.split())
    for name in ServerSettings.model_fields:
        assert f"--{name.replace('_', '-')} " in text


def test_a_wrong_value_is_one_line_that_names_the_flag() -> None:
    ended = vipsrv("serve", "--port", "70000", "--quality", "101")
    assert ended.returncode == 2
    assert [line.split()[1] for line in ended.stderr.splitlines()] == ["--port:", "--quality:"]


def test_ping(server: RunningServer) -> None:
    ended = vipsrv("ping", "--port", str(server.port))
    assert ended.returncode == 0
    assert f"127.0.0.1:{server.port} answered in" in ended.stdout


def test_ping_of_nobody() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        ended = vipsrv("ping", "--port", str(closed.getsockname()[1]))
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("level", ["loud", ""])
def test_a_log_level_that_is_none(level: str) -> None:
    ended = vipsrv("serve", "--log-level", level)
    assert ended.returncode == 2
    assert "--log-level" in ended.stderr
