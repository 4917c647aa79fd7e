"""Suite: the pipeline alone, by format and size, in a process of its own and without a server.

Rows are as in ``bench.suites.measurement``; the measured process is the loop over the pipeline.
"""

import contextlib
import statistics
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measuring.processes import anonymous_bytes
from bench.measuring.sampling import Peak
from bench.suites.cases import Case
from bench.suites.loops import PIPELINE, CaseLoop, Loops, Turn
from bench.suites.measurement import MEGA, Scale, about


def test_the_pipeline_keeps_up_with_the_bare_loop(
    benchmark: BenchmarkFixture, loops: Loops, scale: Scale, case: Case
) -> None:
    """With checked headers, limits and colours it takes no more CPU time than ``thumbnail_buffer``."""
    with CaseLoop(PIPELINE) as pipeline:  # a loop of its own, because its memory is measured
        if case.file is not None:  # a file of a corpus, which may be unreadable
            with skipped_where_refused(case):
                pipeline.prepare(case)
                bare = loops(case)
        else:
            pipeline.prepare(case)
            bare = loops(case)
        _measure(benchmark, case, scale, pipeline, bare)


@contextlib.contextmanager
def skipped_where_refused(case: Case) -> Iterator[None]:
    """Skip the row of a file that one of the two loops cannot read."""
    try:
        yield
    except RuntimeError:
        pytest.skip(f"{case.name}: the pipeline or the bare loop cannot read it; standard error says why")


def _measure(
    benchmark: BenchmarkFixture, case: Case, scale: Scale, pipeline: CaseLoop, bare: CaseLoop
) -> None:
    idle = sum(map(anonymous_bytes, pipeline.pids))
    once = min(bare.run(1).cpu for _ in range(2))
    requests = scale.requests(once)
    with Peak(pipeline.pids) as peak:
        pipeline.run(max(3, requests))
    turns: list[tuple[Turn, Turn]] = []
    loop = Turn(0, 0)

    def setup() -> None:
        nonlocal loop
        loop = bare.run(requests)

    def run() -> None:
        turns.append((pipeline.run(requests), loop))

    benchmark.pedantic(run, setup=setup, rounds=scale.rounds_of(requests * once))
    ratios = [own.cpu / loop.cpu for own, loop in turns]
    row = benchmark.extra_info
    row.update(about(case, pipeline.result))
    row.update(
        requests=requests,
        mb_per_second=requests * row["input_bytes"] / MEGA / statistics.median(own.wall for own, _ in turns),
        pipeline_cpu_ms=statistics.median(own.cpu for own, _ in turns) / requests * 1e3,
        bare_cpu_ms=statistics.median(loop.cpu for _, loop in turns) / requests * 1e3,
        cpu_over_bare=statistics.median(ratios),
        cpu_over_bare_rounds=ratios,
        size_over_bare=row["output_bytes"] / len(bare.result),
        ssim_of_bare=about(case, bare.result)["ssim"],
        idle_anonymous_mb=idle / MEGA,
        peak_anonymous_mb=peak.bytes / MEGA,
    )
