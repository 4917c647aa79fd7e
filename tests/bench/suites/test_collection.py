"""pytest finds the rows of the suites by the command that the README gives."""

import os
import subprocess
import sys

from bench import BENCH, ROOT
from bench.tools.gate import read_limits


def test_the_quick_suite_has_every_row_that_has_a_limit() -> None:
    command = [sys.executable, "-m", "pytest", "bench", "--quick", "--collect-only", "--quiet"]
    # A worker of pytest-xdist passes its own settings on by the environment.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    listed = subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True, text=True)
    limits = read_limits((BENCH / "limits.toml").read_text())
    assert {limit.row for limit in limits} <= set(listed.stdout.splitlines())
