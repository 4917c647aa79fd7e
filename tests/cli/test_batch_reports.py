"""``vipsrv batch status`` and ``vipsrv batch report``."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.support.batch_rows import RUN, failed_row, ok_row, outputs, write_part
from vipsrv.batch.manifest.layout import shard_name
from vipsrv.batch.progress import Progress
from vipsrv.batch.stores.folder_destination import FolderDestination
from vipsrv.batch.stores.left_out import LeftOut
from vipsrv.cli.batch_summary import Tally, summary
from vipsrv.cli.server import app

MADE = outputs(320)


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    async def write() -> None:
        opened = FolderDestination(tmp_path / "out")
        rows = (ok_row("a.jpg", MADE), failed_row("b\x1b.jpg", MADE), failed_row("c.jpg", MADE))
        await write_part(opened, shard_name(RUN, 1), MADE, *rows)
        await opened.close()

    asyncio.run(write())
    return tmp_path / "out"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["batch", *map(str, arguments)])


def test_the_status_of_a_destination(destination: Path) -> None:
    result = run("status", destination)
    assert result.exit_code == 0
    assert result.stdout.startswith(
        f"{destination}\n  done           1 image, 1 result\n  failed         2 images\n"
    )
    values = json.loads(run("status", "--json", destination).stdout)
    assert (values["done"], values["failed"]) == (1, 2)


def test_the_report_of_a_destination(destination: Path, tmp_path: Path) -> None:
    page, failures = tmp_path / "page.html", tmp_path / "failures.jsonl"
    result = run("report", destination, "-o", page, "--failures", failures)
    assert result.exit_code == 0
    assert result.stdout == f"{page}: 1 image done, 2 failed\n{failures}: 2 failures\n"
    assert page.read_text().startswith("<!doctype html>")
    assert [json.loads(line)["key"] for line in failures.read_text().splitlines()] == ["b\x1b.jpg", "c.jpg"]
    assert run("report", destination, "--output", "-").stdout.endswith("</html>\n")


@pytest.mark.parametrize("command", ["status", "report"])
def test_a_place_without_a_manifest_is_told(command: str, tmp_path: Path) -> None:
    result = run(command, tmp_path)
    assert result.exit_code == 4
    assert result.stderr == (
        f"vipsrv batch: {tmp_path}: no batch has written here: there is no manifest in .vipsrv\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_is_told(destination: Path) -> None:
    result = run("report", destination, "-o", "/nowhere/page.html")
    assert result.exit_code == 4
    assert result.stderr == "vipsrv batch: /nowhere/page.html: No such file or directory\n"


def test_a_damaged_part_is_told_by_its_name(destination: Path) -> None:
    part = next((destination / ".vipsrv/parts").iterdir())
    part.write_bytes(part.read_bytes()[:-9])
    result = run("status", destination)
    assert result.exit_code == 4
    assert f".vipsrv/parts/{part.name}: is no part of a manifest, or damaged" in result.stderr


def test_a_summary_tells_what_was_amiss_with_earlier_runs() -> None:
    progress = Progress(run=RUN, started=0.0, notes=("an earlier run left a damaged journal",))
    lines = summary(
        Tally(), progress, 1.0, left_out=LeftOut(), destination="out", command=["batch"], ended=True
    )
    assert lines[1] == "note: an earlier run left a damaged journal"
