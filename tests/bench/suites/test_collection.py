"""pytest finds the rows of the suites by the command that the README gives."""

import subprocess
import sys

from bench import BENCH, ROOT
from bench.tools.gate import read_limits


def test_the_quick_suite_has_every_row_that_has_a_limit() -> None:
    command = [sys.executable, "-m", "pytest", "bench", "--quick", "--collect-only", "--quiet"]
    listed = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout
    rows = set(listed.splitlines())
    limits = read_limits((BENCH / "limits.toml").read_text())
    assert {limit.row for limit in limits} <= rows
