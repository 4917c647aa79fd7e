"""Charts of the memory of a server's processes during a run."""

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.load.record import MemorySample, Run
from bench.report import style
from bench.report.latency import describe

FIRST_MARK = 1000
_MEGA = 1e6


def at(samples: list[MemorySample], replies: int) -> MemorySample | None:
    """The first sample after this many replies."""
    return next((sample for sample in samples if sample.requests >= replies), None)


def growth(samples: list[MemorySample]) -> float | None:
    """The memory at the end over that after 1,000 replies; ``None`` if there were no more."""
    first = at(samples, FIRST_MARK)
    if first is None or first is samples[-1]:
        return None
    return samples[-1].total_bytes / first.total_bytes


def chart(run: Run) -> Figure:
    """Draw a line for all processes together, for the gateway and for each worker."""
    assert run.server is not None
    samples = run.server.memory
    seconds = [sample.seconds for sample in samples]
    figure = Figure(figsize=(8.0, 4.6))
    axes = figure.subplots()
    figure.subplots_adjust(left=0.09, right=0.8, top=0.79, bottom=0.13)
    total = [sample.total_bytes / _MEGA for sample in samples]
    workers = [sum(sample.worker_bytes) / _MEGA for sample in samples]
    gateway = [sample.gateway_bytes / _MEGA for sample in samples]
    number = max(len(sample.worker_bytes) for sample in samples)
    lines = ((total, "together", style.BLUE), (workers, f"{number} workers", style.ORANGE))
    ends = []
    for values, label, colour in (*lines, (gateway, "gateway", style.GREEN)):
        axes.plot(seconds, values, color=colour, linewidth=2.0)
        ends.append((values[-1], f"{label}  {values[-1]:.0f} MB", colour))
    for mark in (FIRST_MARK, samples[-1].requests):
        sample = at(samples, mark)
        if sample is None:
            continue
        axes.plot(sample.seconds, sample.total_bytes / _MEGA, "o", color=style.BLUE, markersize=6)
        axes.annotate(
            f"{sample.total_bytes / _MEGA:.0f} MB after\n{sample.requests:,} replies",
            (sample.seconds, sample.total_bytes / _MEGA),
            # Memory grows, so there is no line below the first label and above the last.
            xytext=(6, -9) if mark == FIRST_MARK else (0, 9),
            textcoords="offset points",
            va="top" if mark == FIRST_MARK else "bottom",
            ha="left" if mark == FIRST_MARK else "right",
            fontsize=9,
        )
    axes.set_ylim(0, max(total) * 1.3)
    axes.set_xlim(0, seconds[-1] * 1.01)
    axes.set_xlabel("seconds")
    axes.set_ylabel("anonymous memory in MB")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    style.grid(axes, "y")
    style.label_ends(axes, ends)
    grown = growth(samples)
    words = f"{describe(run)}."
    if grown is not None:
        words += f" At the end {grown:.2f} × what it was after {FIRST_MARK:,} replies."
    style.headline(figure, "Memory over time", words)
    return figure
