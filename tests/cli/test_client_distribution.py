"""The distribution ``vipsrv-client``: its wheel, installed alone into an empty environment."""

import json
import os
import socket
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest
from PIL import Image

from tests.client.fake_server import SECONDS
from tests.support.images import jpeg
from tests.support.running_server import RunningServer
from vipsrv.cli.exit_codes import ExitCode

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "vipsrv" / "client"
ABSENT = ["pyvips", "_libvips", "pydantic", "uvloop", "vipsrv.server", "vipsrv.pipeline", "vipsrv.workers"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    arguments: list[str | Path] = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        "wheel",
        "--directory",
        folder,
    ]
    subprocess.run(arguments, cwd=PROJECT, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment with the wheel and its dependencies alone."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    python = folder / "bin" / "python"
    subprocess.run(
        [*_pip(), "--python", python, "install", "--quiet", wheel],
        check=True,
        capture_output=True,
    )
    return python.parent


def _pip() -> list[str]:
    """The command that runs pip, which may be installed only where this environment was made from."""
    for python in (sys.executable, str(getattr(sys, "_base_executable", sys.executable))):
        if (
            subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode
            == 0
        ):
            return [python, "-m", "pip"]
    raise FileNotFoundError("neither this Python nor the one that it comes from has pip")


def run(command: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VIPSRV_", "PYTHON"))}
    return subprocess.run(
        [command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
        env=kept,
        cwd=command.parent,
    )


def test_the_wheel_has_the_client_and_the_protocol_and_no_part_of_the_server(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        modules = {name for name in archive.namelist() if name.endswith(".py")}
    for folder in ("client", "options", "protocol"):
        present = {str(path.relative_to(ROOT)) for path in (ROOT / "vipsrv" / folder).rglob("*.py")}
        assert {name for name in modules if name.startswith(f"vipsrv/{folder}/")} == present
    folders = {name.split("/")[1] for name in modules if name.count("/") > 1}
    assert folders == {"client", "options", "protocol", "cli"}


def test_every_module_of_it_can_be_imported(wheel: Path, environment: Path) -> None:
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".py")]
    modules = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in names]
    done = run(environment / "python", "-c", f"import {', '.join(modules)}")
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_of_the_server_is_installed_with_it(environment: Path) -> None:
    code = f"""
import importlib.util, json, sys
def present(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
print(json.dumps([name for name in {ABSENT} if present(name)]))
"""
    assert json.loads(run(environment / "python", "-c", code).stdout) == []
    assert not (environment / "vipsrv").exists()


def test_it_resizes_with_a_running_server(environment: Path, server: RunningServer, tmp_path: Path) -> None:
    image = tmp_path / "photo.jpg"
    image.write_bytes(jpeg(400, 300))
    there = ["--host", server.host, "--port", server.port]
    done = run(environment / "vipsrv-client", image, *there, "--width", 80, "--output", tmp_path / "a.png")
    assert (done.returncode, done.stderr) == (0, "")
    with Image.open(tmp_path / "a.png") as opened:
        assert (opened.format, opened.size) == ("PNG", (80, 60))
    code = f"""
import vipsrv
with vipsrv.Client({server.host!r}, {server.port}) as client:
    client.resize({str(image)!r}, width=80).save({str(tmp_path / "b.jpg")!r})
"""
    done = run(environment / "python", "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    with Image.open(tmp_path / "b.jpg") as opened:
        assert (opened.format, opened.size) == ("JPEG", (80, 60))


def test_where_no_server_runs_it_says_what_to_install(environment: Path, tmp_path: Path) -> None:
    image = tmp_path / "photo.jpg"
    image.write_bytes(jpeg(400, 300))
    with socket.socket() as taken:  # bound, so that nobody else gets the port, but not listening
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        code = f"""
import sys, vipsrv.client.server_address as default
default.DEFAULT_PORT = {port}
from vipsrv.cli.client import main
sys.argv[1:] = [{str(image)!r}]
main()
"""
        done = run(environment / "python", "-c", code)
    assert done.returncode == ExitCode.NO_SERVER
    assert done.stderr == (
        f"vipsrv-client: nothing listens on 127.0.0.1:{port}; install vipsrv to have a server started for "
        "the call, or name a running server with --host and --port\n"
    )
    code = "import vipsrv\nwith vipsrv.Client.embedded() as client: client.ping()"
    done = run(environment / "python", "-c", code)
    assert done.stderr.splitlines()[-1] == (
        "vipsrv.errors.StartFailed: the server is not installed here; install vipsrv to have one started"
    )
