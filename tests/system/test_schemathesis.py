"""schemathesis tests a real server by its OpenAPI document: valid, invalid and odd requests of its own.

``nox -s http_check`` installs it.
"""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.http_server import RunningHttpServer

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "support" / "schemathesis"


@pytest.mark.skipif(find_spec("schemathesis") is None, reason="schemathesis is not installed")
def test_schemathesis_finds_nothing(http_server: RunningHttpServer, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(FOLDER / "schemathesis.toml")),
            *("run", f"{http_server.url}/openapi.json", "--no-color"),
        ],
        cwd=tmp_path,  # where it leaves a cache
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": str(FOLDER / "hooks.py"),
            "COLUMNS": "200",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert passed is not None, done.stdout
    assert int(passed[1]) == int(passed[2]) > 300
