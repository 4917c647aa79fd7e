"""Suite: pictures of 400 megapixels, uploads included, against libvips alone on the same file on disk.

Rows have the figures of ``bench.rows`` that concern one request on an idle machine, and those of the
``vipsthumbnail`` command, in turns: ``latency_over_thumbnail``, ``thumbnail_seconds``,
``thumbnail_cpu_seconds`` and ``thumbnail_peak_anonymous_mb``. ``thumbnail`` says what ran: where the command
is not on the path, the same by pyvips in a process of its own with all cores, less the time that Python takes
to start.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.cases import GIANTS, Case
from bench.memory import Peak
from bench.processes import Server, anonymous_bytes, cpu_seconds
from bench.rows import MEGA, about
from vipsrv import Client
from vipsrv.client import Timeout

ROUNDS = 3
PYVIPS = """
import sys, time
import pyvips
started = time.monotonic()
image = pyvips.Image.thumbnail(sys.argv[1], int(sys.argv[2]), height=int(sys.argv[3]), size="force")
image.jpegsave(sys.argv[4], Q=85)
print(time.monotonic() - started)
"""


@dataclass(frozen=True, slots=True)
class Alone:
    """What libvips took by itself: seconds by the clock and of CPU, and its anonymous memory at most."""

    seconds: float
    cpu: float
    peak: int


def _alone(case: Case, result: Path) -> tuple[str, Alone]:
    program = shutil.which("vipsthumbnail")
    size = f"{case.width}x{case.height}!"
    path, width, height = str(case.path), str(case.width), str(case.height)
    command: Sequence[str]
    if program:
        command = [program, path, "--size", size, "--output", f"{result}[Q=85]"]
    else:
        command = [sys.executable, "-c", PYVIPS, path, width, height, str(result)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
        Peak([process.pid]) as peak,
    ):
        assert process.stdout is not None
        said = process.stdout.read()
        os.waitid(
            os.P_PID, process.pid, os.WEXITED | os.WNOWAIT
        )  # it stays in /proc as long as it is looked at
    assert process.returncode == 0, "see above"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.monotonic() - started if program else float(said)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return program or "pyvips.Image.thumbnail, all cores", Alone(seconds, cpu, peak.bytes)


@pytest.mark.full
@pytest.mark.parametrize("giant", GIANTS, ids=lambda case: case.id)
def test_a_giant_takes_little_longer_than_vipsthumbnail(
    benchmark: BenchmarkFixture, all_cores: Server, giant: Case, tmp_path: Path
) -> None:
    """Decoded while it arrives, or at least as fast: upload and all, by the clock, and in little memory."""
    path = giant.path
    _read(path)
    alone: list[Alone] = []
    own: list[float] = []
    peaks: list[int] = []
    cpu: list[list[float]] = []
    pids = all_cores.pids
    idle = sum(map(anonymous_bytes, pids))
    name = ""
    data = b""

    def turn() -> None:
        nonlocal name
        name, took = _alone(giant, tmp_path / "alone.jpg")
        alone.append(took)

    with Client(port=all_cores.port, timeout=Timeout(reply=600)) as client:

        def resize() -> None:
            nonlocal data
            before = [cpu_seconds(pid) for pid in pids]
            with Peak(pids) as peak:
                started = time.monotonic()
                data = client.resize(path, width=giant.width, height=giant.height).data
                own.append(time.monotonic() - started)
            cpu.append([cpu_seconds(pid) - then for pid, then in zip(pids, before, strict=True)])
            peaks.append(peak.bytes)

        benchmark.pedantic(resize, setup=turn, rounds=ROUNDS)
    row = benchmark.extra_info
    row.update(about(giant, data))
    row.update(
        requests=1,
        mb_per_second=row["input_bytes"] / MEGA / statistics.median(own),
        gateway_cpu_ms=statistics.median(one[0] for one in cpu) * 1e3,
        workers_cpu_ms=statistics.median(sum(one[1:]) for one in cpu) * 1e3,
        server_cpu_ms=statistics.median(sum(one) for one in cpu) * 1e3,
        idle_anonymous_mb=idle / MEGA,
        peak_anonymous_mb=max(peaks) / MEGA,
        thumbnail=name,
        thumbnail_seconds=statistics.median(one.seconds for one in alone),
        thumbnail_cpu_seconds=statistics.median(one.cpu for one in alone),
        thumbnail_peak_anonymous_mb=max(one.peak for one in alone) / MEGA,
        latency_over_thumbnail=statistics.median(
            mine / other.seconds for mine, other in zip(own, alone, strict=True)
        ),
    )


def _read(path: Path) -> None:
    """Have the file in the page cache for both, so that no disk is measured."""
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass
