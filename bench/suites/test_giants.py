"""Suite: images of 400 megapixels, uploads included, against libvips alone on the same file on disk.

Rows have those values of ``bench.suites.measurement`` that concern one request on an idle machine, and those
of the ``vipsthumbnail`` command, which takes turns with the server: ``latency_over_thumbnail``,
``thumbnail_seconds``, ``thumbnail_cpu_seconds`` and ``thumbnail_peak_anonymous_mb``. ``thumbnail`` says what
ran: without the command on the path it is pyvips in a process of its own with all cores, without the start of
Python.
"""

import statistics
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.baselines import vipsthumbnail
from bench.measuring.processes import anonymous_bytes, cpu_seconds
from bench.measuring.sampling import Peak
from bench.measuring.server import Server
from bench.suites.cases import GIANTS, Case
from bench.suites.measurement import MEGA, about
from vipsrv import Client, Timeout

ROUNDS = 3


@pytest.mark.full
@pytest.mark.parametrize("giant", GIANTS, ids=lambda case: case.id)
def test_a_giant_takes_little_longer_than_vipsthumbnail(
    benchmark: BenchmarkFixture, all_cores: Server, giant: Case, tmp_path: Path
) -> None:
    """By the clock, including the upload, and in little memory."""
    path = giant.path
    vipsthumbnail.read_into_cache(path)
    alone: list[vipsthumbnail.Alone] = []
    own: list[float] = []
    peaks: list[int] = []
    cpu: list[list[float]] = []
    pids = all_cores.pids
    idle = sum(map(anonymous_bytes, pids))
    name = ""
    data = b""

    def turn() -> None:
        nonlocal name
        program, result = vipsthumbnail.command(), tmp_path / "alone.jpg"
        size = giant.width, giant.height
        name = program or "pyvips.Image.thumbnail, all cores"
        alone.append(
            vipsthumbnail.by_command(program, path, *size, result)
            if program
            else vipsthumbnail.by_pyvips(path, *size, result)
        )

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
