"""The examples for uploads by tus, each run with the program that it is for."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from tests.server.identity.records import add
from tests.support.bad_network import CUTS, BadNetwork, cut_every
from tests.support.http_server import RunningHttpServer
from tests.support.images import encode, photo

EXAMPLES = Path(__file__).parents[2] / "examples" / "uploads"
TUS_JS_CLIENT = "tus-js-client@4.3.1"

COMMANDS = {
    "upload.sh": ["sh"],
    "upload.py": [sys.executable],
    "upload.mjs": ["node"],
}


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tus-js-client and the example for it."""
    folder = tmp_path_factory.mktemp("node")
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    done = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", TUS_JS_CLIENT],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"npm cannot install {TUS_JS_CLIENT}")
    shutil.copy(EXAMPLES / "upload.mjs", folder)
    return folder


@pytest.fixture(params=COMMANDS)
def script(request: pytest.FixtureRequest) -> Path:
    """An example, where it can run."""
    name: str = request.param
    if name == "upload.mjs":
        folder: Path = request.getfixturevalue("node_folder")
        return folder / name
    if name == "upload.sh" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    if name == "upload.py" and find_spec("tusclient") is None:
        pytest.skip("tuspy is not installed")
    return EXAMPLES / name


def run(script: Path, *arguments: Path, url: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment: Mapping[str, str] = {**os.environ, "VIPSRV_URL": url, **more}
    return subprocess.run(
        [*COMMANDS[script.name], str(script), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "image.tif"
    path.write_bytes(encode(photo(800, 600), "TIFF"))
    return path


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


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == set(COMMANDS)


def test_an_example_uploads_through_a_bad_network(
    guarded: RunningHttpServer, token: str, image: Path, tmp_path: Path, script: Path
) -> None:
    target = tmp_path / "small.webp"
    with BadNetwork(guarded.port, cut_every(400_000, seed=2, endings=CUTS, limit=6)) as network:
        url = f"http://{network.host}:{network.port}"
        done = run(script, image, target, url=url, VIPSRV_TOKEN=token)
        assert done.returncode == 0, done.stderr
        assert network.accepted < 1.05 * image.stat().st_size + 1024 * network.connections
    with Image.open(target) as result:
        assert (result.format, result.size) == ("WEBP", (800, 600))
    assert "webp;width=800;height=600;" in done.stdout


def test_an_example_tells_why_it_failed(
    guarded: RunningHttpServer, token: str, tmp_path: Path, script: Path
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("not an image")
    done = run(script, notes, tmp_path / "small.webp", url=guarded.url, VIPSRV_TOKEN=token)
    assert done.returncode != 0
    assert ("415" if script.suffix == ".sh" else "unsupported_format: ") in done.stderr
