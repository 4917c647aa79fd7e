"""The page about many images says what the command does, and its commands and example run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.images import jpeg
from vipsrv.batch.metrics import RunCollector
from vipsrv.batch.progress import Progress
from vipsrv.cli.exit_codes import ExitCode

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guide" / "many-images.md").read_text()
README = (ROOT / "README.md").read_text()
COMMAND = Path(sys.executable).with_name("vipsrv")


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    return [
        line for block in blocks("sh", text) for line in block.splitlines() if line.startswith("vipsrv batch")
    ]


def run(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        arguments,
        cwd=cwd,
        env={"PATH": f"{COMMAND.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos" / "2024").mkdir(parents=True)
    (tmp_path / "photos" / "2024" / "cat.jpg").write_bytes(jpeg(60, 40))
    return tmp_path


def test_the_table_has_every_metric() -> None:
    table = set(re.findall(r"`(vipsrv_batch_\w+?)(?:\{[a-z,]+\})?`", PAGE))
    page = {
        metric.name + {"counter": "_total", "info": "_info"}.get(metric.type, "")
        for metric in RunCollector(lambda: Progress(run="r", started=0.0)).collect()
    }
    assert table == page


def test_the_table_has_every_exit_code() -> None:
    table = re.findall(r"^\| (\d+)(?:, (\d+))? \|", PAGE, re.MULTILINE)
    codes = {int(code) for row in table for code in row if code}
    assert codes == {0, *ExitCode} - {ExitCode.TIMEOUT}


def test_all_flags_exist(tmp_path: Path) -> None:
    known = (
        "".join(
            run(str(COMMAND), *words, "--help", cwd=tmp_path).stdout
            for words in (["batch"], ["batch", "status"], ["batch", "report"])
        )
        + run(str(COMMAND.with_name("vipsrv-client")), "--help", cwd=tmp_path).stdout
    )
    flags = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    assert len(flags) > 20
    assert {flag for flag in flags if not re.search(rf"{flag}\b", known)} == set()


def test_the_commands_run_one_after_another(folder: Path) -> None:
    for line in (line for line in commands(PAGE) if "s3://" not in line):
        done = run("/bin/sh", "-euc", line, cwd=folder)
        assert done.returncode == 0, done.stderr
    made = {path.name for path in (folder / "thumbs" / "2024").iterdir()}
    assert made == {"cat_320x.webp", "cat_640x.webp", "cat_1280x.webp"}


def test_the_commands_of_the_readme_are_those_of_the_page() -> None:
    shown = [re.sub(r"\s+#.*", "", line) for line in commands(README)]
    assert len(shown) >= 3
    assert set(shown) <= set(commands(PAGE))


def test_the_example_runs(folder: Path) -> None:
    (folder / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (example,) = blocks("python", PAGE)
    done = run(sys.executable, "-W", "error", "-c", example, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("broken.jpg 422 corrupt_image ")
    assert (folder / "thumbs" / "2024" / "cat_640x.webp").exists()
