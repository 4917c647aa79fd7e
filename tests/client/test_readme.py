"""The README's Python examples: they pass strict types and run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.fake_server import SECONDS
from tests.support.images import grey16_png, jpeg
from tests.support.running_server import RunningServer
from tests.support.unused_port import unused_port

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)

MISTAKES = """
import io
import tempfile
from typing import IO

from vipsrv import Client, Format, ResizeOptions, Version1Client

client = Client()
client.resize("photo.jpg", width=8, fit="squeeze")  # ERROR
client.resize("photo.jpg", width=8, format="bmp")  # ERROR
client.resize("photo.jpg", width=8, colour="red")  # ERROR
client.resize("photo.jpg", width="8")  # ERROR
client.resize(io.StringIO("text"), width=8)  # ERROR
Version1Client().resize(b"image", width=8, height=6).source  # ERROR
client.resize("photo.jpg", width=8, fit="cover", format="jpg", position="right top", keep="icc")
client.resize("photo.jpg", width=8, format=Format.PNG)
client.resize("photo.jpg", ResizeOptions(width=8, height=6))
with tempfile.SpooledTemporaryFile() as spooled, open("photo.jpg", "rb") as file:
    client.resize(spooled, width=8)
    client.resize(file, width=8)
    client.info(io.BytesIO())
pages: int = client.info(b"image").pages
milliseconds: float = client.resize(b"image", width=8).timings.total
"""
"""Calls that a type checker must refuse, marked so, and others that it must accept."""


def test_there_are_examples_of_both_clients() -> None:
    assert len(EXAMPLES) >= 4
    assert any("AsyncClient" in example for example in EXAMPLES)


def mypy(*files: Path) -> str:
    """What mypy prints about these files in strict mode, without the project's own settings."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", *files],
        capture_output=True,
        text=True,
        check=False,
        cwd=files[0].parent,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )
    assert done.stderr == ""
    return done.stdout


def test_the_examples_pass_strict_types_and_mistakes_do_not(tmp_path: Path) -> None:
    examples = []
    for number, example in enumerate(EXAMPLES):
        path = tmp_path / f"example_{number}.py"
        path.write_text(example)
        examples.append(path)
    mistakes = tmp_path / "mistakes.py"
    mistakes.write_text(MISTAKES)
    output = mypy(*examples, mistakes)
    refused = {int(line) for line in re.findall(r"^mistakes\.py:(\d+): error", output, re.MULTILINE)}
    expected = {number for number, line in enumerate(MISTAKES.splitlines(), 1) if line.endswith("# ERROR")}
    assert refused == expected, output
    assert "example_" not in output


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs(server: RunningServer, tmp_path: Path, example: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg(1600, 1200))
    example = example.replace("10.0.0.3:65432", f"{server.host}:{server.port}")
    example = example.replace("10.0.0.4:65432", f"127.0.0.1:{unused_port()}")
    for name, image in (
        ("one.jpg", jpeg(90, 60)),
        ("two.png", grey16_png(90, 60)),
        ("three.tif", jpeg(90, 60)),
    ):
        (tmp_path / name).write_bytes(image)
    done = subprocess.run(
        [sys.executable, "-c", example],
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
        cwd=tmp_path,
        env={
            **os.environ,
            "VIPSRV_HOST": server.host,
            "VIPSRV_PORT": str(server.port),
            "VIPSRV_WORKERS": "1",
            "PYTHONPATH": str(ROOT),
        },
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "failed" not in done.stdout
    for name in re.findall(r'save\("([^"]+)"\)', example):
        assert (tmp_path / name).read_bytes().startswith(b"\xff\xd8\xff")
