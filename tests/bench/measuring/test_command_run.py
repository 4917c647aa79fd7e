"""A command is measured with all its descendants, and one that fails says why."""

import sys
from pathlib import Path

import pytest

from bench.measuring.command_run import CommandFailed, run_command

# Takes a tenth of a second of CPU in a process that its parent does not wait for.
ORPHAN = """
import os, time
if os.fork() == 0:
    while time.process_time() < 0.3:
        pass
    os._exit(0)
os._exit(0)
"""


def test_the_time_of_a_process_that_nobody_waited_for_counts() -> None:
    assert run_command([sys.executable, "-S", "-c", ORPHAN]).cpu >= 0.29


def test_what_it_says_its_memory_and_its_environment(tmp_path: Path) -> None:
    script = (
        "import os, sys; bytearray(50_000_000); print(os.environ['ONE'], os.getcwd(), 'TWO' in os.environ)"
    )
    run = run_command([sys.executable, "-c", script], environment={"ONE": "1", "TWO": ""}, directory=tmp_path)
    assert run.said.split() == ["1", str(tmp_path), "False"]
    assert 50e6 < run.peak_bytes < 200e6
    assert run.seconds > 0


def test_a_failed_command_says_why() -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such folder')"]
    with pytest.raises(CommandFailed, match="ended with 1: no such folder"):
        run_command(command)
    assert run_command(command, codes=(0, 1)).said == "no such folder\n"
