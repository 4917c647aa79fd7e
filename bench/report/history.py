"""The metrics of the suites over the commits at which they were measured."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import quality, style
from bench.report.inputs import Suite
from bench.report.throughput import three_digits

CPU = "cpu_over_bare"
"""The metric of ``extra_info`` that compares CPU time with a bare loop in the same run."""

_COMMIT_LETTERS = 9
_COLUMNS = 2
_LABEL_INCHES = 0.17
_LEAST_INCHES = 1.3
_PANEL_INCHES = 3.4
_LEFT_INCHES = 0.65
_TITLE_SIZE = 10.0
_TOLD = 4


@dataclass(frozen=True, slots=True)
class Line:
    """One metric of one row over the commits. A point is the commit's index in time order, and the value."""

    name: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines that can be compared with one another."""

    title: str
    lines: tuple[Line, ...]
    logarithmic: bool = False


def commits(suites: Iterable[Suite]) -> list[Suite]:
    """Sort the files by commit; of several files of one commit keep the one that ran last."""
    found: dict[tuple[str, bool], Suite] = {}
    for suite in sorted(suites, key=lambda suite: suite.datetime):
        found[suite.commit_info.id, suite.commit_info.dirty] = suite
    return sorted(found.values(), key=lambda suite: (suite.commit_info.time, suite.commit_info.dirty))


def panels(ordered: Sequence[Suite]) -> list[Panel]:
    """The panels: CPU time by claim, compression ratio and SSIM.

    A panel of a claim has a line for each of its cases, the others have a line for each image.
    """
    claims: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for place, suite in enumerate(ordered):
        for row in suite.benchmarks:
            value = row.metric(CPU)
            if value is not None:
                claim, _, case = row.name.removeprefix("test_").partition("[")
                points = claims.setdefault(claim, {}).setdefault(case.rstrip("]"), [])
                points.append((place, value))
    found = [
        Panel(f"CPU over a bare loop's: {claim.replace('_', ' ')}", _lines(cases))
        for claim, cases in sorted(claims.items())
    ]
    ratio = _by_image(ordered, lambda result: result.ratio)
    likeness = _by_image(ordered, lambda result: result.ssim)
    if ratio:
        found.append(Panel("Compression ratio", ratio, logarithmic=True))
        found.append(Panel("SSIM", likeness))
    return found


def label(suite: Suite) -> str:
    """The label of a commit on the axis."""
    info = suite.commit_info
    return info.id[:_COMMIT_LETTERS] + ("+" if info.dirty else "") + "\n" + info.time[:10]


def chart(ordered: Sequence[Suite]) -> Figure:
    """Draw all panels, two in a row."""
    shown = panels(ordered)
    rows = [shown[start : start + _COLUMNS] for start in range(0, len(shown), _COLUMNS)]
    heights = [max(_LEAST_INCHES, *(len(one.lines) * _LABEL_INCHES for one in row)) + 0.85 for row in rows]
    height = sum(heights) + 1.0
    beside = max(_inches_beside(panel) for panel in shown)
    width = _COLUMNS * (_LEFT_INCHES + _PANEL_INCHES + beside)
    figure = Figure(figsize=(width, height))
    cells = figure.subplots(len(rows), _COLUMNS, squeeze=False, gridspec_kw={"height_ratios": heights})
    between = 0.85 / (sum(heights) / len(heights) - 0.85)
    figure.subplots_adjust(
        left=_LEFT_INCHES / width,
        right=1 - beside / width,
        top=1 - 1.05 / height,
        bottom=0.6 / height,
        hspace=between,
        wspace=(beside + _LEFT_INCHES) / _PANEL_INCHES,
    )
    for row, axes_of_row in zip(rows, cells, strict=True):
        for number, axes in enumerate(axes_of_row):
            if number < len(row):
                _draw(axes, row[number], [label(suite) for suite in ordered])
            else:
                axes.set_axis_off()
    below = "Rows of the suites, oldest commit first. Less CPU is better; more compression and SSIM are."
    style.headline(figure, "History over commits", below)
    return figure


def _draw(axes: Axes, panel: Panel, names: Sequence[str]) -> None:
    ends = []
    for number, line in enumerate(panel.lines):
        colour, marker = style.look(number)
        places, values = zip(*line.points, strict=True)
        axes.plot(places, values, color=colour, marker=marker, markersize=5, linewidth=1.5)
        ends.append((line.points[-1][1], _end(line), colour))
    if panel.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda *_: "")
    axes.margins(y=0.12)
    # The last commit has a label, and as many before it as there is space for.
    told = range(len(names) - 1, -1, -math.ceil(len(names) / _TOLD))
    axes.set_xticks(list(told), [names[place] for place in told], fontsize=8)
    axes.set_xlim(-0.3, len(names) - 0.9)
    axes.set_title(panel.title, fontsize=_TITLE_SIZE)
    style.grid(axes, "y")
    style.label_ends(axes, ends)


def _end(line: Line) -> str:
    value = line.points[-1][1]
    return f"{three_digits(value) if value >= 10 else f'{value:.3f}'}  {line.name}"


def _inches_beside(panel: Panel) -> float:
    """The inches to leave free to the right of a panel, for its labels or for a longer title."""
    title = style.inches(panel.title, _TITLE_SIZE) - _PANEL_INCHES
    return max(style.label_inches(map(_end, panel.lines)), title)


def _lines(points: dict[str, list[tuple[int, float]]]) -> tuple[Line, ...]:
    return tuple(Line(name, tuple(found)) for name, found in sorted(points.items()))


def _by_image(ordered: Sequence[Suite], value: Callable[[quality.Result], float]) -> tuple[Line, ...]:
    points: dict[str, list[tuple[int, float]]] = {}
    for place, suite in enumerate(ordered):
        for result in quality.of_suite(suite):
            points.setdefault(result.image, []).append((place, value(result)))
    return _lines(points)
