"""``vipsrv-client`` and the servers of ``--server`` and ``VIPSRV_SERVERS``, of which one is not there."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.support.images import jpeg
from tests.support.running_server import RunningServer, serve
from tests.support.unused_port import unused_port
from vipsrv.cli.client import app
from vipsrv.cli.exit_codes import ExitCode


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with RunningServer("--workers", "1") as running:
        yield running


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("VIPSRV_"):
            monkeypatch.delenv(name)
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(400, 300))
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_one_image_goes_to_the_server_that_is_there(photo: Path, server: RunningServer) -> None:
    here, gone = f"127.0.0.1:{server.port}", f"127.0.0.1:{unused_port()}"
    done = invoke(photo, "--width", 40, "--server", gone, "--server", here, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["server"] == here


def test_many_images_do_as_well(photo: Path, server: RunningServer, tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.jpg").write_bytes(photo.read_bytes())
    here, gone = f"127.0.0.1:{server.port}", f"127.0.0.1:{unused_port()}"
    out = tmp_path / "out"
    done = invoke(tmp_path, "--width", 40, "--output-dir", out, "--server", gone, "--server", here)
    assert done.exit_code == 0, done.output
    assert len(list(out.iterdir())) == 9


def test_the_variable_names_servers(
    photo: Path, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIPSRV_SERVERS", f"127.0.0.1:{unused_port()},127.0.0.1:{server.port}")
    assert invoke(photo, "--width", 40).exit_code == 0
    refused = invoke(photo, "--width", 40, "--host", "127.0.0.1", "--port", unused_port())
    assert refused.exit_code == ExitCode.NO_SERVER, "a host that is named wins"


def test_if_none_is_there_the_error_names_all(photo: Path) -> None:
    ports = unused_port(), unused_port()
    servers = [word for port in ports for word in ("--server", f"127.0.0.1:{port}")]
    done = invoke(photo, "--width", 40, *servers)
    assert done.exit_code == ExitCode.NO_SERVER
    assert all(f"127.0.0.1:{port}: no connection" in done.stderr for port in ports)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--server", "a:1", "--port", "2"], "--server: replaces --host and --port"),
        (["--server", "http://a:1"], "--server: 'http://a:1' is an address for HTTP"),
        (["--server", "a:1", "--protocol", "1"], "--server: version 1 of the protocol is for one server"),
    ],
)
def test_what_is_refused(photo: Path, arguments: list[str], message: str) -> None:
    done = invoke(photo, "--width", 40, "--height", 30, *arguments)
    assert done.exit_code == ExitCode.USAGE
    assert message in done.stderr


def test_a_server_passes_the_variable_of_clients_over() -> None:
    done = serve("--no-config", "--port", "0", "--workers", "-1", VIPSRV_SERVERS="a:1")
    assert "VIPSRV_SERVERS" not in done.stderr
    assert "workers" in done.stderr, "it has looked at its settings"
