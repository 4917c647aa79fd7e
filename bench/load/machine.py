"""What a benchmark ran on."""

import os
import platform
import subprocess
from pathlib import Path

from bench.load.record import Machine
from vipsrv.version import __version__

_ROOT = Path(__file__).parents[2]


def this_machine() -> Machine:
    """The machine, the interpreter and the commit."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        kernel=platform.release(),
        python=platform.python_version(),
        vipsrv=__version__,
        commit=_commit(),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str | None:
    try:
        described = subprocess.run(
            ["git", "-C", _ROOT, "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return None
    return described.stdout.strip()
