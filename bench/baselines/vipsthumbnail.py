"""libvips alone on a file, in a process of its own with all cores, to compare with a giant's upload."""

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
    """Seconds by the clock, CPU seconds, and the most bytes of anonymous memory."""

    seconds: float
    cpu: float
    peak: int


def command() -> str | None:
    """The path of ``vipsthumbnail``; ``None`` if it is not installed."""
    return shutil.which("vipsthumbnail")


def by_command(program: str, path: Path, width: int, height: int, result: Path) -> Alone:
    """Resize a file to a JPEG of quality 85 by ``vipsthumbnail``."""
    return _run(program, str(path), "--size", f"{width}x{height}!", "--output", f"{result}[Q=85]")


def by_pyvips(path: Path, width: int, height: int, result: Path) -> Alone:
    """Do the same by pyvips; ``seconds`` does not include the start of Python."""
    return _run(sys.executable, "-c", _BY_PYVIPS, str(path), str(width), str(height), str(result))


def read_into_cache(path: Path) -> None:
    """Read a file into the page cache, so that the disk is not measured."""
    with path.open("rb", buffering=0) as file:
        while file.read(_READ_AT_ONCE):
            pass


def _run(*arguments: str) -> Alone:
    # libvips' default is a thread a core.
    environment = {name: value for name, value in os.environ.items() if name != "VIPS_CONCURRENCY"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    with (
        subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as process,
        Peak([process.pid]) as peak,
    ):
        assert process.stdout is not None
        said = process.stdout.read()
        # The process is not reaped while its memory is sampled.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        took = time.monotonic() - started
    assert process.returncode == 0, "it failed; its messages are above"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Alone(float(said) if said else took, cpu, peak.bytes)
