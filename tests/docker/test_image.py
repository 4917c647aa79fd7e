"""The files of the container image, without an engine: its locks, entry point and health check.

``docker/ci/check`` builds and runs the image itself.
"""

import http.server
import os
import re
import socket
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "docker" / "image"
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

_PINNED = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>[^ ;\\]+)[^\n]*(?P<hashes>(\n    --hash=sha256:[0-9a-f]{64}.*)*)",
    flags=re.MULTILINE,
)


def locked(file: str) -> dict[str, str]:
    """The version of each package of a lock file, which has to name its hashes."""
    found = list(_PINNED.finditer((IMAGE / file).read_text()))
    assert found
    assert all(one["hashes"] for one in found)
    return {canonicalize_name(one["name"]): one["version"] for one in found}


def unfit(requirements: list[str], versions: dict[str, str]) -> list[str]:
    wanted = [Requirement(text) for text in requirements]
    return [
        f"{one}: {versions.get(canonicalize_name(one.name))} is locked"
        for one in wanted
        if canonicalize_name(one.name) not in versions
        or not one.specifier.contains(versions[canonicalize_name(one.name)], prereleases=True)
    ]


def test_the_lock_fits_the_project() -> None:
    requirements = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["otel"]
    assert unfit(requirements, locked("requirements.txt")) == [], "run docker/lock"


def test_the_lock_of_what_builds_wheels_is_complete() -> None:
    lines = (IMAGE / "requirements-build.in").read_text().splitlines()
    requirements = [line for line in lines if line and not line.startswith("#")]
    build_system = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert unfit(requirements + build_system, locked("requirements-build.txt")) == [], "run docker/lock"


def test_no_package_is_installed_without_a_hash() -> None:
    commands = re.split(r"&&|^[A-Z]+ ", DOCKERFILE, flags=re.MULTILINE)
    installs = [one for one in commands if re.search(r"pip .*(install|wheel) ", one)]
    installs = [one for one in installs if "uninstall" not in one]
    assert len(installs) == 5
    assert all("--require-hashes" in one or "--no-index" in one for one in installs)


def test_the_workflow_gives_every_argument_of_the_image() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    build = jobs["image"]["steps"][-1]["with"]
    given = {line.partition("=")[0] for line in build["build-args"].splitlines()}
    declared = {
        word.partition("=")[0]
        for line in re.findall(r"^ARG (.*)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()
    }
    assert given == declared
    targets = {one["target"] for one in jobs["image"]["strategy"]["matrix"]["include"]}
    assert targets <= set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with programs of the image that print how they were called."""
    for name in ("vipsrv", "vipsrv-client"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "{name} $*"\n')
        program.chmod(0o755)
    return tmp_path


def run(script: str, *arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", **variables}
    return subprocess.run(
        [IMAGE / script, *arguments], env=environment, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        ("", "vipsrv serve"),
        ("--quality 75", "vipsrv serve --quality 75"),
        ("serve --quality 75", "vipsrv serve --quality 75"),
        ("top", "vipsrv top"),  # there may be a program of this name
        ("--version", "vipsrv --version"),
        ("--help", "vipsrv --help"),
        ("vipsrv batch a b", "vipsrv batch a b"),
        ("batch a b", "vipsrv batch a b"),
        ("vipsrv-client photo.jpg", "vipsrv-client photo.jpg"),
        ("/bin/echo hello", "hello"),
        ("sh -c pwd", os.getcwd()),  # noqa: PTH109 - what the shell prints
    ],
)
def test_what_the_entry_point_starts(arguments: str, called: str, programs: Path) -> None:
    assert run("entrypoint", *arguments.split(), folder=programs).stdout.strip() == called


def test_the_entry_point_is_replaced_by_the_program(programs: Path) -> None:
    (programs / "vipsrv").write_text("#!/bin/sh\necho $$\n")
    with subprocess.Popen(
        [IMAGE / "entrypoint"], env={"PATH": f"{programs}:{os.environ['PATH']}"}, stdout=subprocess.PIPE
    ) as process:
        assert process.communicate(timeout=30)[0] == f"{process.pid}\n".encode()


class _Ready(http.server.BaseHTTPRequestHandler):
    """Answers as /readyz does, with the status that the test has chosen."""

    status = HTTPStatus.OK

    def do_GET(self) -> None:
        body = b"ready\n" if self.status is HTTPStatus.OK else b"not ready: no worker\n"
        self.send_response(self.status if self.path == "/readyz" else HTTPStatus.NOT_FOUND)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[http.server.HTTPServer, type[_Ready]]]:
    monkeypatch.setattr(_Ready, "status", HTTPStatus.OK)
    with http.server.HTTPServer(("127.0.0.1", 0), _Ready) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server, _Ready
        server.shutdown()
        thread.join()


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="bash, which the image has, is not at /bin/bash")
def test_the_health_check_starts_no_python(
    ready: tuple[http.server.HTTPServer, type[_Ready]], programs: Path
) -> None:
    server, handler = ready
    (programs / "vipsrv").write_text("#!/bin/sh\necho started >&2\nexit 9\n")
    file = programs / "ops"
    file.write_text(f"ops://127.0.0.1:{server.server_port}\n")
    check = run("healthcheck", folder=programs, VIPSRV_OPS_FILE=str(file))
    assert (check.returncode, check.stdout, check.stderr) == (0, "200: ready\n", "")
    handler.status = HTTPStatus.SERVICE_UNAVAILABLE
    check = run("healthcheck", folder=programs, VIPSRV_OPS_FILE=str(file))
    assert (check.returncode, check.stdout) == (1, "503: not ready: no worker\n")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    file.write_text(f"ops://127.0.0.1:{port}\n")
    check = run("healthcheck", folder=programs, VIPSRV_OPS_FILE=str(file))
    assert (check.returncode, check.stdout) == (1, f"nothing listens at 127.0.0.1:{port}\n")


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="bash, which the image has, is not at /bin/bash")
@pytest.mark.parametrize("text", ["ops+unix:/tmp/ops\n", "off\n", None])
def test_the_health_check_asks_vipsrv_where_there_is_no_tcp_address(text: str | None, programs: Path) -> None:
    file = programs / "ops"
    if text is not None:
        file.write_text(text)
    check = run("healthcheck", folder=programs, VIPSRV_OPS_FILE=str(file))
    assert check.stdout == "vipsrv health --ready --timeout 8\n"
    assert run("healthcheck", folder=programs).stdout == check.stdout
