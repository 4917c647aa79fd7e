"""A command that is run to its end, and what it and all its descendants have used.

A process of its own starts the command, because only so the CPU time of descendants that nobody waited for is
known: they become children of that process (PR_SET_CHILD_SUBREAPER), which waits for them.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import ROOT

_SET_CHILD_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of linux/prctl.h."""

_TAIL = 3
"""Lines of a failed command's messages that are told."""


class CommandFailed(Exception):
    """A command ended with an error; the message has the end of what it said."""


@dataclass(frozen=True, slots=True)
class CommandRun:
    """What a command took: seconds by the clock until it ended, and the CPU seconds of all its processes.

    ``peak_bytes`` is the largest resident set of one of its processes (``ru_maxrss``).
    """

    seconds: float
    cpu: float
    peak_bytes: int
    said: str


def run_command(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    codes: Sequence[int] = (0,),
) -> CommandRun:
    """Run a command to its end. ``environment`` is added to that of this process; an empty value removes one.

    Raises ``CommandFailed`` for an exit code that is none of ``codes``.
    """
    variables = {**os.environ, **(environment or {})}
    variables = {name: value for name, value in variables.items() if value}
    order = {"command": list(command), "directory": str(directory) if directory else None}
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(
            [sys.executable, "-m", __name__, json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            env=variables,
            cwd=ROOT,
            check=True,
        )
        said.seek(0)
        text = said.read().decode(errors="replace")
    result = json.loads(done.stdout)
    if result["code"] not in codes:
        told = [line.strip() for line in text.splitlines() if line.strip()][-_TAIL:]
        raise CommandFailed(f"{command[0]} ended with {result['code']}: {' / '.join(told)}")
    return CommandRun(result["seconds"], result["cpu"], result["peak_bytes"], text)


def _main() -> None:
    order: dict[str, Any] = json.loads(sys.argv[1])
    if ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    started = time.monotonic()
    # What the command prints goes to its messages: standard output is for the result.
    process = subprocess.Popen(order["command"], stdout=sys.stderr, cwd=order["directory"])
    code = process.wait()
    seconds = time.monotonic() - started
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        json.dumps(
            {
                "code": code,
                "seconds": seconds,
                "cpu": used.ru_utime + used.ru_stime,
                "peak_bytes": used.ru_maxrss * 1024,
            }
        )
    )


if __name__ == "__main__":
    _main()
