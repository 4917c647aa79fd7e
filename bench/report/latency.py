"""Latency percentiles against load: the rate of an open loop, or the requests in flight of a closed one."""

from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from bench.load.record import CORRECTED, FROM_INTENDED_START, NOT_CORRECTED, Document, Run
from bench.report import style
from bench.report.throughput import three_digits

_PERCENTILES = (
    ("p50_ms", "p50", style.BLUE, "o"),
    ("p90_ms", "p90", style.GREEN, "s"),
    ("p99_ms", "p99", style.ORANGE, "D"),
    ("p999_ms", "p99.9", style.VERMILION, "^"),
)

_COUNTED = {
    FROM_INTENDED_START: " Counted from when a request was due.",
    CORRECTED: " Requests that a wait kept from being sent are counted.",
    NOT_CORRECTED: " Counted from when a request was sent.",
}


@dataclass(frozen=True, slots=True)
class Sweep:
    """Runs that differ only in their load, in ascending order of load."""

    name: str
    loop: str
    runs: tuple[Run, ...]


def sweeps(documents: Iterable[Document]) -> list[Sweep]:
    """Find the sweeps with at least two loads in all files; of several equal runs the last one counts."""
    groups: dict[tuple[str, str], dict[float, Run]] = {}
    for document in documents:
        for run in document.runs:
            if run.latency is not None:
                groups.setdefault((describe(run), run.loop), {})[load_of(run)] = run
    return [
        Sweep(name, loop, tuple(run for _, run in sorted(runs.items())))
        for (name, loop), runs in groups.items()
        if len(runs) > 1
    ]


def describe(run: Run) -> str:
    """Describe a run, without its load."""
    names = [image.name for image in run.images]
    mix = ", ".join(names) if len(names) <= 3 else f"a mix of {len(names)} images"
    words = f"{mix} to {run.width} × {run.height}, version {run.protocol}"
    if run.loop == "open":
        words += f", {run.connections} connections"
        if run.pipeline > 1:
            words += f" × {run.pipeline} in flight"
    return words + (f", {run.idle.asked} idle ones beside" if run.idle else "")


def load_of(run: Run) -> float:
    """Requests due a second in an open loop, requests in flight in a closed one."""
    return float(run.connections * run.pipeline) if run.rate is None else run.rate


def chart(sweep: Sweep) -> Figure:
    """Draw a line for each percentile."""
    figure = Figure(figsize=(8.0, 5.0))
    axes = figure.subplots()
    figure.subplots_adjust(left=0.1, right=0.86, top=0.8, bottom=0.13)
    loads = [load_of(run) for run in sweep.runs]
    ends = []
    for field, label, colour, marker in _PERCENTILES:
        values = [getattr(run.latency, field) for run in sweep.runs]
        axes.plot(loads, values, color=colour, marker=marker, markersize=5, linewidth=1.8)
        ends.append((values[-1], f"{label}  {three_digits(values[-1])}", colour))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(LogLocator(base=10, subs=()))
    axes.set_ylabel("latency in ms, logarithmic")
    axes.set_xlim(0, max(loads) * 1.03)
    axes.set_xlabel("requests due per second" if sweep.loop == "open" else "requests in flight")
    style.grid(axes, "y")
    style.label_ends(axes, ends)
    counted = _COUNTED.get(sweep.runs[0].coordinated_omission, "")
    style.headline(figure, "Latency against load", f"{sweep.name}. Less is better.{counted}")
    return figure
