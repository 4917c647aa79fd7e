"""The result of one run, added up from the tallies of the generator processes and what was observed."""

import os
from collections import Counter
from dataclasses import dataclass

from bench.load.generator import Tally
from bench.load.histogram import Latencies
from bench.load.plan import Plan
from bench.load.record import (
    CORRECTED,
    FROM_INTENDED_START,
    NOT_CORRECTED,
    CoresStats,
    GeneratorStats,
    IdleStats,
    ImageStats,
    MemorySample,
    Run,
    ServerStats,
)
from bench.measuring.cores import Cores
from bench.measuring.server import Server

SATURATED = 0.8
"""Share of a core above which a generator process counts as the bottleneck: it reads replies late."""

LATE = 0.1
LATE_MS = 1.0
"""How late a generator may send: this share of the median latency, but at least ``LATE_MS``."""


@dataclass(frozen=True, slots=True)
class StartedServer:
    """The server that was started for the runs, and its arguments."""

    server: Server
    arguments: list[str]


@dataclass(frozen=True, slots=True)
class Observed:
    """What was observed of the server and the cores. ``seconds`` is the measured time."""

    seconds: float
    cpu: tuple[float, list[float]] | None
    cores: Cores
    memory: list[MemorySample]


def summarise(
    plan: Plan, tallies: list[Tally], observed: Observed, idle: IdleStats | None, own: StartedServer | None
) -> Run:
    """Add up the tallies of all generator processes."""
    latency, service, late = Latencies(), Latencies(), Latencies()
    errors: Counter[str] = Counter()
    for tally in tallies:
        latency.add(tally.latency)
        service.add(tally.service)
        late.add(tally.late)
        errors += tally.errors
    images = [_image(plan, index, tallies) for index in range(len(plan.sources))]
    replies = max(1, sum(tally.replies_in_time for tally in tallies))
    busiest = max((t.cpu_seconds / t.cpu_interval for t in tallies if t.cpu_interval > 0), default=0.0)
    server = None
    if own is not None and observed.cpu is not None:
        gateway, workers = observed.cpu
        server = ServerStats(
            arguments=own.arguments,
            gateway_cpu_ms=gateway / replies * 1e3,
            worker_cpu_ms=[seconds / replies * 1e3 for seconds in workers],
            memory=observed.memory,
        )
    if plan.rate is not None:
        omission = FROM_INTENDED_START
    else:
        omission = CORRECTED if plan.expected_interval else NOT_CORRECTED
    of_generator = sum(tally.cpu_seconds for tally in tallies)
    others = None
    if observed.cpu is not None:
        others = observed.cores.busy - observed.cpu[0] - sum(observed.cpu[1]) - of_generator
    late_p99_ms = late.percentile(99) if len(late) else None
    p50_ms = latency.percentile(50) if len(latency) else 0.0
    return Run(
        loop="closed" if plan.rate is None else "open",
        rate=plan.rate,
        protocol=1 if plan.protocol == 1 else 2,
        connections=plan.connections,
        pipeline=plan.pipeline,
        width=plan.width,
        height=plan.height,
        idle=idle,
        warmup_seconds=plan.warmup,
        seconds=observed.seconds,
        replies_per_second=sum(tally.results_in_time for tally in tallies) / observed.seconds,
        sent_mb_per_second=sum(tally.sent_bytes_in_time for tally in tallies) / observed.seconds / 1e6,
        received_mb_per_second=sum(tally.received_bytes_in_time for tally in tallies)
        / observed.seconds
        / 1e6,
        answered=sum(image.answered for image in images),
        errors=dict(sorted(errors.items())),
        coordinated_omission=omission,
        expected_interval_ms=None if plan.expected_interval is None else plan.expected_interval * 1e3,
        latency=latency.summary(),
        service=service.summary(),
        images=images,
        server=server,
        generator=GeneratorStats(
            processes=len(tallies),
            cpu_ms=of_generator / replies * 1e3,
            busiest=busiest,
            saturated=busiest >= SATURATED or (late_p99_ms or 0.0) > max(LATE_MS, LATE * p50_ms),
            late_p99_ms=late_p99_ms,
        ),
        cores=CoresStats(
            cores=len(os.sched_getaffinity(0)),
            # The clocks of cores and processes are not read at exactly the same moment.
            others=None if others is None else max(0.0, others / observed.cores.total),
            stolen=observed.cores.stolen / observed.cores.total,
        ),
    )


def _image(plan: Plan, index: int, tallies: list[Tally]) -> ImageStats:
    source = plan.sources[index]
    shares_of_it = [tally.images[index] for tally in tallies]
    answered = sum(share.answered for share in shares_of_it)
    return ImageStats(
        name=source.name,
        bytes=source.size,
        weight=source.weight,
        answered=answered,
        failed=sum(share.failed for share in shares_of_it),
        mean_ms=sum(share.seconds for share in shares_of_it) / answered * 1e3 if answered else None,
        mean_result_bytes=sum(share.result_bytes for share in shares_of_it) / answered if answered else None,
    )
