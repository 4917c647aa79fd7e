"""GNU parallel, which runs a program for several files at a time on all cores."""

import shutil
import subprocess

from bench.baselines.batch.interface import Task

FILES_A_CALL = 50
"""So many that the start of a program costs little, so few that the cores end at about the same time."""


def missing() -> str | None:
    """Why it cannot be run here; ``None`` if it can."""
    if shutil.which("parallel") is None:
        return "no parallel on the path: install GNU parallel"
    # Another program of this name is in moreutils.
    said = subprocess.run(["parallel", "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S607
    return None if said.startswith("GNU parallel") else "the parallel on the path is not GNU parallel"


def version() -> str:
    """Its name and version."""
    done = subprocess.run(["parallel", "--version"], capture_output=True, text=True, check=True)  # noqa: S607
    return done.stdout.splitlines()[0]


def command(task: Task, cores: int, *program: str) -> list[str]:
    """The command that runs ``program`` with some files of the task at its end, a process a core."""
    quoted = ["parallel", "--will-cite", "--quote", f"--jobs={cores}", f"--max-args={FILES_A_CALL}"]
    return [*quoted, "--arg-file", str(task.listing), *program]
