"""The local engine in a process of its own, with a server that runs already: its rate, CPU, memory."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import ROOT
from bench.measuring.processes import peak_resident_bytes
from vipsrv.batch import run
from vipsrv.options import Fit, ResizeOptions

START = 0.2
"""The share of the images that come before the measurement: imports, connections, the first part."""


@dataclass(frozen=True, slots=True)
class EngineRun:
    """What a run took. ``rate`` and ``cpu_ms`` are of the images after the start, ``peak_bytes`` of all.

    ``measured`` is the number of these images, ``cpu_ms`` the CPU an image of the process, without its
    server. ``seconds`` is the whole run. Rows that are not ok are counted as ``failed``.
    """

    images: int
    failed: int
    measured: int
    rate: float
    cpu_ms: float
    seconds: float
    peak_bytes: int


def run_engine(source: Path, destination: Path, server: str, width: int) -> EngineRun:
    """Run it in a process of its own. Raises ``subprocess.CalledProcessError``; its messages are above."""
    command = [sys.executable, "-m", __name__, str(source), str(destination), server, str(width)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return EngineRun(**json.loads(done.stdout))


def measure(source: Path, destination: Path, server: str, width: int) -> EngineRun:
    """Run it in this process, with the files of one folder."""
    options = ResizeOptions(width=width, fit=Fit.INSIDE, quality=85)
    start = int(sum(1 for _ in source.iterdir()) * START)
    began, began_cpu, began_at = time.monotonic(), time.process_time(), 0
    first = began
    images = failed = 0
    with run(source, destination, options, server=server) as rows:
        for row in rows:
            images += 1
            failed += not row.ok
            if images == start:
                began, began_cpu, began_at = time.monotonic(), time.process_time(), images
    # The end of the run, in which the last part is written, is a part of the measurement.
    seconds, cpu = time.monotonic() - began, time.process_time() - began_cpu
    measured = images - began_at
    return EngineRun(
        images=images,
        failed=failed,
        measured=measured,
        rate=measured / seconds,
        cpu_ms=cpu / measured * 1e3,
        seconds=time.monotonic() - first,
        peak_bytes=peak_resident_bytes(os.getpid()),
    )


def main(arguments: Sequence[str]) -> None:
    """Print the result as JSON."""
    source, destination, server, width = arguments
    print(json.dumps(asdict(measure(Path(source), Path(destination), server, int(width)))))


if __name__ == "__main__":
    main(sys.argv[1:])
