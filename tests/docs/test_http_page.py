"""The page about HTTP says what the code does, and its commands and examples run."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from http import HTTPStatus
from pathlib import Path

import pytest
from PIL import Image

from tests.support.http_server import RunningHttpServer
from tests.support.images import jpeg
from vipsrv.errors import REQUEST_ERRORS
from vipsrv.options import Fit, Format, Keep, Position
from vipsrv.server.api.parameters import PARAMETERS
from vipsrv.server.api.problems import TITLES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guide" / "http.md").read_text()
README = (ROOT / "README.md").read_text()
ADDRESS = "http://127.0.0.1:8080"

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def blocks(language: str, text: str = PAGE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table after a heading, without its head."""
    section = PAGE.split(f"\n{heading}\n", 1)[1]
    table = re.search(r"^(\|.*\n)+", section, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[0].splitlines()[2:]]


def curls(text: str = PAGE) -> list[str]:
    return [block for block in blocks("sh", text) if block.startswith("curl")]


def test_the_table_has_every_parameter() -> None:
    table = {tuple(re.findall(r"`(\w+)`", row[0])): row for row in rows("### Parameters")}
    assert list(table) == [(one.name, *one.aliases) for one in PARAMETERS.values()]
    for name, kind in (("fit", Fit), ("position", Position), ("format", Format), ("keep", Keep)):
        (row,) = [row for names, row in table.items() if names[0] == name]
        assert re.findall(r"`([\w ]+)`", row[1]) == list(kind)
    for name, one in PARAMETERS.items():
        (row,) = [row for names, row in table.items() if names[0] == name]
        if one.schema["type"] == "integer":
            assert row[1] == f"{one.schema['minimum']} – {one.schema['maximum']}"
        if "default" in one.schema:
            assert row[2].strip("`") == str(one.schema["default"]).lower()


def test_the_table_has_every_problem_with_its_status() -> None:
    table = {
        match[1]: int(row[0]) for row in rows("## Problems") if (match := re.search(r"</a>`(\w+)`", row[1]))
    }
    assert set(table) == set(TITLES)
    for error in REQUEST_ERRORS.values():
        assert table[error.code] == error.status
    assert all(status in (460, 499) or HTTPStatus(status) for status in table.values())


def test_the_problem_that_is_shown_is_one() -> None:
    (shown,) = blocks("json")
    problem = json.loads(shown)
    assert problem["title"] == TITLES[problem["code"]]
    assert problem["type"].endswith(f"#problem-{problem['code']}")


@needs_curl
@pytest.mark.parametrize("command", [*curls(), *curls(README)])
def test_a_command_runs(http_server: RunningHttpServer, tmp_path: Path, command: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg())
    assert ADDRESS in command
    done = subprocess.run(
        ["/bin/sh", "-euc", command.replace("curl ", "curl -sS --fail ").replace(ADDRESS, http_server.url)],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "VIPSRV_TOKEN": "none-is-needed"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "$VIPSRV_TOKEN" in command:
        assert "401" in done.stderr or done.returncode == 0
        return
    assert done.returncode == 0, done.stderr
    for name in re.findall(r"-o (\S+)", command):
        path = tmp_path / name
        if name.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None
                assert len(archive.namelist()) == 3
        else:
            with Image.open(path) as image:
                assert image.format == ("WEBP" if name.endswith(".webp") else "JPEG")
    if "-o " not in command:
        assert "jpeg" in done.stdout


@pytest.mark.parametrize("example", blocks("python"))
def test_an_example_runs(http_server: RunningHttpServer, tmp_path: Path, example: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg())
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example.replace(ADDRESS, http_server.url)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.stem.partition("x")[0] for path in tmp_path.glob("*.webp")) == ["320", "640"]
