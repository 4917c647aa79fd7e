"""Every example is run as a user would run it, against a real server."""

import ast
import io
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support import images
from tests.support.running_server import RunningServer

EXAMPLES = Path(__file__).parents[2] / "examples"
PUBLIC_MODULES = {"vipsrv", "vipsrv.batch"}

each_example = pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)


def run(script: str, *arguments: object, port: int, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / script), *map(str, arguments)],
        env={**os.environ, "VIPSRV_HOST": "127.0.0.1", "VIPSRV_PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(images.jpeg(400, 200))
    return path


def size_of(path: Path) -> tuple[int, int]:
    return Image.open(io.BytesIO(path.read_bytes())).size


def test_resize_one(server: RunningServer, photo: Path, tmp_path: Path) -> None:
    done = run("resize_one.py", photo, tmp_path / "small.jpg", port=server.port)
    assert size_of(tmp_path / "small.jpg") == (800, 400)
    assert "800 x 400" in done.stdout


def test_resize_many(server: RunningServer, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(photo.read_bytes()[:300])
    done = run("resize_many.py", tmp_path, tmp_path / "thumbs", port=server.port)
    assert (
        done.stdout
        == "photo.jpg -> photo_320x.webp, photo_640x.webp\n1 done, 1 failed, 0 done or failed earlier\n"
    )
    assert done.stderr.startswith("broken.jpg: 422 corrupt_image: ")
    assert size_of(tmp_path / "thumbs" / "photo_320x.webp") == (320, 160)
    again = run("resize_many.py", tmp_path, tmp_path / "thumbs", port=server.port)
    assert (again.stdout, again.stderr) == ("0 done, 0 failed, 2 done or failed earlier\n", "")


def test_several_sizes(server: RunningServer, photo: Path, tmp_path: Path) -> None:
    run("several_sizes.py", photo, port=server.port)
    assert {path.name: size_of(path) for path in tmp_path.glob("*.webp")} == {
        "photo-320.webp": (320, 160),
        "photo-640.webp": (640, 320),
        "photo-1280.webp": (1280, 640),
    }


def test_resize_folder(server: RunningServer, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "second.png").write_bytes(images.encode(images.photo(), "PNG"))
    (tmp_path / "notes.txt").write_text("not an image")
    done = run("resize_folder.py", photo.parent, tmp_path / "small", port=server.port)
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == ["photo.jpg", "second.jpg"]
    assert size_of(tmp_path / "small" / "second.jpg") == (200, 200)
    assert "notes.txt: unsupported_format" in done.stderr


def test_retry(server: RunningServer, photo: Path, tmp_path: Path) -> None:
    run("retry.py", photo, tmp_path / "small.jpg", port=server.port)
    assert size_of(tmp_path / "small.jpg") == (800, 600)


def test_retry_reports_at_once_what_would_fail_again(server: RunningServer, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("not an image")
    done = run("retry.py", notes, tmp_path / "small.jpg", port=server.port, code=1)
    assert "UnsupportedFormat" in done.stderr


def test_retry_gives_up_without_a_server(photo: Path, tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # not listening, so every attempt is refused
        done = run("retry.py", photo, tmp_path / "small.jpg", port=bound.getsockname()[1], code=1)
    assert "ConnectFailed" in done.stderr


def test_plain_socket(server: RunningServer, photo: Path, tmp_path: Path) -> None:
    run("plain_socket.py", photo, tmp_path / "small.jpg", port=server.port)
    assert size_of(tmp_path / "small.jpg") == (800, 600)


def test_plain_socket_tells_the_reason_of_a_refusal(server: RunningServer, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("not an image")
    done = run("plain_socket.py", notes, tmp_path / "small.jpg", port=server.port, code=1)
    assert "unsupported_format" in done.stderr


@each_example
def test_an_example_imports_only_the_public_api(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
        elif isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
    ours = {name for name in imported if name.split(".")[0] in {"vipsrv", "tests", "bench", "fuzz"}}
    assert ours <= PUBLIC_MODULES


@each_example
def test_an_example_is_run_and_listed(path: Path) -> None:
    assert f'run("{path.name}"' in Path(__file__).read_text()
    assert f"]({path.name})" in (EXAMPLES / "README.md").read_text()


def test_the_plain_client_is_as_short_as_it_says() -> None:
    assert len((EXAMPLES / "plain_socket.py").read_text().splitlines()) <= 25
