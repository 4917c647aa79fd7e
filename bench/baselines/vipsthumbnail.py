"""libvips alone on a file, in a process of its own with all cores: what a giant's upload is compared with."""

import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.measuring.sampling import Peak

_BY_PYVIPS = """
import sys, time
import pyvips
started = time.monotonic()
image = pyvips.Image.thumbnail(sys.argv[1], int(sys.argv[2]), height=int(sys.argv[3]), size="force")
image.jpegsave(sys.argv[4], Q=85)
print(time.monotonic() - started)
"""

_READ_AT_ONCE = 1 << 24


@dataclass(frozen=True, slots=True)
class Alone:
    """What it took: seconds by the clock and of CPU, and its anonymous memory at most, in bytes."""

    seconds: float
    cpu: float
    peak: int


def command() -> str | None:
    """Where ``vipsthumbnail`` is, if it is on the path."""
    return shutil.which("vipsthumbnail")


def by_command(program: str, path: Path, width: int, height: int, result: Path) -> Alone:
    """The file in ``width`` × ``height`` as a JPEG of quality 85, by ``vipsthumbnail``."""
    return _run(program, str(path), "--size", f"{width}x{height}!", "--output", f"{result}[Q=85]")


def by_pyvips(path: Path, width: int, height: int, result: Path) -> Alone:
    """The same by the pyvips at hand; its seconds are without the start of Python."""
    return _run(sys.executable, "-c", _BY_PYVIPS, str(path), str(width), str(height), str(result))


def read_into_cache(path: Path) -> None:
    """Have a file in the page cache, so that no disk is measured."""
    with path.open("rb", buffering=0) as file:
        while file.read(_READ_AT_ONCE):
            pass


def _run(*arguments: str) -> Alone:
    # libvips' own default: a thread a core.
    environment = {name: value for name, value in os.environ.items() if name != "VIPS_CONCURRENCY"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    with (
        subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as process,
        Peak([process.pid]) as peak,
    ):
        assert process.stdout is not None
        said = process.stdout.read()
        # It stays in /proc for as long as it is looked at.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        took = time.monotonic() - started
    assert process.returncode == 0, "see above"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Alone(float(said) if said else took, cpu, peak.bytes)
