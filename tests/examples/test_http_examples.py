"""The examples for HTTP, each run with the program that it is for."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image

from tests.server.identity.records import add
from tests.support.http_server import RunningHttpServer
from tests.support.images import jpeg

EXAMPLES = Path(__file__).parents[2] / "examples" / "http"

COMMANDS = {
    "resize.sh": ["sh"],
    "resize.py": [sys.executable, "-W", "error"],
    "resize.mjs": ["node"],
    "resize.go": ["go", "run"],
}


def run(script: str, *arguments: Path, url: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = COMMANDS[script]
    program = "curl" if script == "resize.sh" else command[0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    if script == "resize.py":
        pytest.importorskip("httpx", reason="httpx is not installed")
    environment: Mapping[str, str] = {**os.environ, "VIPSRV_URL": url, **more}
    return subprocess.run(
        [*command, str(EXAMPLES / script), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(400, 200))
    return path


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == set(COMMANDS)


@pytest.mark.parametrize("script", COMMANDS)
def test_an_example_resizes(http_server: RunningHttpServer, photo: Path, tmp_path: Path, script: str) -> None:
    done = run(script, photo, tmp_path / "small.webp", url=http_server.url)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "small.webp") as image:
        assert (image.format, image.size) == ("WEBP", (800, 400))
    assert "webp;width=800;height=400;" in done.stdout


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens") / "tokens.toml"


@pytest.fixture(scope="module")
def token(tokens: Path) -> str:
    return add(tokens).text


@pytest.fixture(scope="module")
def guarded(tokens: Path, token: str) -> Iterator[RunningHttpServer]:  # noqa: ARG001 - the file has it
    with RunningHttpServer("--workers", "1", "--tokens", str(tokens)) as server:
        yield server


@pytest.mark.parametrize("script", COMMANDS)
def test_an_example_sends_a_token(
    guarded: RunningHttpServer, token: str, photo: Path, tmp_path: Path, script: str
) -> None:
    done = run(script, photo, tmp_path / "small.webp", url=guarded.url, VIPSRV_TOKEN=token)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", COMMANDS)
def test_an_example_tells_why_it_failed(http_server: RunningHttpServer, tmp_path: Path, script: str) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("not an image")
    done = run(script, notes, tmp_path / "small.webp", url=http_server.url)
    assert done.returncode != 0
    assert ("415" if script == "resize.sh" else "unsupported_format: ") in done.stderr
