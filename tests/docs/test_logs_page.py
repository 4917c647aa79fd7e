"""The page about logs: its examples are what a server writes, and its code runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import StartServer
from tests.server.logs.lines import full_line
from tests.support.images import jpeg
from tests.support.running_server import wait_until
from vipsrv.errors import InternalError
from vipsrv.server.request_ids import RequestIds
from vipsrv.server.settings import ServerSettings

PAGE = (Path(__file__).parents[2] / "docs/operations/logs.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def names_in_tables(column: str) -> list[str]:
    """The names in the first column of the table whose first heading is ``column``."""
    table = re.search(rf"^\| {column} \|.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    assert table is not None
    cells = [row.split("|")[1] for row in table[0].strip().splitlines()[2:]]
    return [name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)]


def shape(value: Any) -> Any:
    """The names and types in a JSON value."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    return list(map(shape, value)) if isinstance(value, list) else type(value)


def run(code: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_run_and_look_as_shown(start_server: StartServer, tmp_path: Path) -> None:
    send, evaluate = blocks("python")
    path = tmp_path / "vipsrv.log"
    server = start_server("--workers", "1", "--log-file", str(path))
    (tmp_path / "photo.jpg").write_bytes(jpeg())
    run(send, tmp_path, VIPSRV_HOST="127.0.0.1", VIPSRV_PORT=str(server.port))
    wait_until(lambda: '"event":"request"' in path.read_text(), "the line of the request")
    line = json.loads(path.read_text().splitlines()[1])
    assert line.pop("request_id") == "order 4711"
    example = json.loads(blocks("json")[0])
    assert shape(line) == shape(example)
    assert list(line) == list(example)
    if shutil.which("jq"):
        command = ["/bin/sh", "-c", blocks("sh")[1]]
        shown = subprocess.check_output(command, cwd=tmp_path, text=True)
        assert json.loads(shown) == [line["ms"]["total"], "resize", line["source"]["bytes"], line["peer"]]
    (total, kind, status, peer) = run(evaluate, tmp_path).split()
    assert (float(total), kind, int(status), peer) == (line["ms"]["total"], "resize", 200, line["peer"])


def test_the_table_has_every_field() -> None:
    line = full_line(
        identity="a",
        error=InternalError("a", where="b"),
        ids=RequestIds("a", "b"),
        lost="a",
        sample=2,
    )
    # The renderer adds the number of the gateway.
    assert set(names_in_tables("field")) == {"time", "gateway", *line.fields()} - {"event"}


def test_the_table_has_every_setting_of_the_log() -> None:
    settings = [name for name in ServerSettings.model_fields if name.startswith(("log_", "access_log"))]
    assert names_in_tables("setting") == settings
