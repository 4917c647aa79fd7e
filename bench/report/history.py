"""The figures of the suites over the commits that they were taken at."""

from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.figure import Figure

from bench.report import style
from bench.report.inputs import Suite
from bench.report.throughput import three_figures

METRICS = (
    ("cpu_over_bare", "CPU over a bare loop's", "less is better"),
    ("compression_ratio", "Compression ratio", "more is better"),
    ("ssim", "SSIM", "more is better"),
)
"""Of ``extra_info``, what it is called, and which way is better."""

_COMMIT_LETTERS = 9


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of one row over the commits, by their place in the order of time."""

    name: str
    points: tuple[tuple[int, float], ...]


def commits(suites: Iterable[Suite]) -> list[Suite]:
    """One file a commit, in the commits' order; of several of one commit the one that ran last."""
    found: dict[tuple[str, bool], Suite] = {}
    for suite in sorted(suites, key=lambda suite: suite.datetime):
        found[suite.commit_info.id, suite.commit_info.dirty] = suite
    return sorted(found.values(), key=lambda suite: (suite.commit_info.time, suite.commit_info.dirty))


def lines(ordered: list[Suite], metric: str) -> list[Line]:
    """A line for each row that has this figure at any of the commits."""
    points: dict[str, list[tuple[int, float]]] = {}
    for place, suite in enumerate(ordered):
        for row in suite.benchmarks:
            value = row.figure(metric)
            if value is not None:
                points.setdefault(row.name.removeprefix("test_"), []).append((place, value))
    return [Line(name, tuple(found)) for name, found in sorted(points.items())]


def label(suite: Suite) -> str:
    """A commit on the axis."""
    info = suite.commit_info
    return info.id[:_COMMIT_LETTERS] + ("+" if info.dirty else "") + "\n" + info.time[:10]


def chart(ordered: list[Suite]) -> Figure:
    """A panel for each figure that any row has."""
    shown = [(metric, found) for metric in METRICS if (found := lines(ordered, metric[0]))]
    rows = max((len(found) for _, found in shown), default=0)
    legend = rows * 0.19 + 0.2
    height = 2.6 * len(shown) + 1.2 + legend
    figure = Figure(figsize=(9.0, height))
    panels = figure.subplots(len(shown), 1, squeeze=False, sharex=True)[:, 0]
    figure.subplots_adjust(
        left=0.09, right=0.9, top=1 - 1.1 / height, bottom=(legend + 0.6) / height, hspace=0.3
    )
    names = sorted({line.name for _, found in shown for line in found})
    for axes, ((_, title, better), found) in zip(panels, shown, strict=True):
        for line in found:
            number = names.index(line.name)
            axes.plot(
                [place for place, _ in line.points],
                [value for _, value in line.points],
                color=style.LINES[number % len(style.LINES)],
                marker=style.MARKERS[number // len(style.LINES) % len(style.MARKERS)],
                markersize=5,
                linewidth=1.5,
                label=line.name,
            )
            place, value = line.points[-1]
            axes.annotate(
                three_figures(value) if value >= 10 else f"{value:.3f}",
                (place, value),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=style.LINES[number % len(style.LINES)],
                annotation_clip=False,
            )
        axes.set_title(f"{title}, {better}")
        style.grid(axes, "y")
    panels[-1].set_xticks(range(len(ordered)), [label(suite) for suite in ordered], fontsize=8)
    panels[-1].set_xlim(-0.3, len(ordered) - 0.7)
    handles = {
        text: handle
        for axes in panels
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="lower left", bbox_to_anchor=(0.01, 0.0), fontsize=8, ncols=1
    )
    style.headline(figure, "History over commits", "Rows of the suites, oldest commit first.")
    return figure
