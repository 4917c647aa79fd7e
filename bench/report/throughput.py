"""The chart of a comparison's throughput: a panel for each image, a bar for each server."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench.report import style
from bench.report.inputs import ComparedRow, Comparison

OWN = "vipsrv"

NAMES = {
    "bare-loop": "libvips, a bare loop",
    "pipeline-loop": "vipsrv's pipeline, a loop",
    "codec-floor": "codecs alone, libvips",
    "turbojpeg-floor": "codecs alone, libjpeg-turbo",
    "original": "Pillow server, one thread",
    "original-draft": "Pillow server, draft mode",
}
"""The names of the baselines in a chart; other servers keep their own."""

_BAR_INCHES = 0.29
_PANEL_INCHES = 0.75
_HEAD_INCHES = 0.95
_FOOT_INCHES = 0.6
_COLUMNS = 2


def chart(comparison: Comparison, *, results_only: bool = False) -> Figure:
    """Draw requests a second. ``results_only`` leaves out the floors, which make no result."""
    rows = [row for row in comparison.rows if row.ssim is not None or not results_only]
    images = list(dict.fromkeys(row.image for row in rows))
    panels = [[row for row in rows if row.image == image] for image in images]
    columns = min(_COLUMNS, len(panels))
    lines = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    heights = [max(map(len, line)) * _BAR_INCHES + _PANEL_INCHES for line in lines]
    height = sum(heights) + _HEAD_INCHES + _FOOT_INCHES
    width = 5.7 * columns if columns > 1 else 7.0
    figure = Figure(figsize=(width, height))
    cells = figure.subplots(
        len(lines), columns, squeeze=False, gridspec_kw={"height_ratios": heights, "wspace": 0.78}
    )
    for line, axes_of_line in zip(lines, cells, strict=True):
        for number, axes in enumerate(axes_of_line):
            if number < len(line):
                _panel(axes, line[number], max(map(len, line)))
            else:
                axes.set_axis_off()
    figure.subplots_adjust(
        left=2.05 / width,
        right=1 - 0.55 / width,
        top=1 - (_HEAD_INCHES + 0.1) / height,
        bottom=(_FOOT_INCHES + 0.35) / height,
        hspace=_PANEL_INCHES / (sum(heights) / len(heights) - _PANEL_INCHES) * 1.1,
    )
    style.headline(figure, "Images resized per second", _conditions(comparison))
    figure.legend(
        handles=[
            Patch(color=style.BLUE, label="vipsrv"),
            Patch(color=style.GREY, label="other servers"),
            Patch(facecolor="white", edgecolor=style.MUTED, hatch="////", label="no server, the work alone"),
        ],
        loc="lower left",
        bbox_to_anchor=(0.1 / width, 0.05 / height),
        ncols=3,
    )
    return figure


def _panel(axes: Axes, rows: Sequence[ComparedRow], bars: int) -> None:
    ordered = sorted(rows, key=lambda row: row.throughput)
    top = max(row.throughput for row in rows)
    for place, row in enumerate(ordered):
        own = row.server == OWN
        if row.is_loop and not own:
            axes.barh(place, row.throughput, 0.68, facecolor="white", edgecolor=style.MUTED, hatch="////")
        else:
            axes.barh(place, row.throughput, 0.68, color=style.BLUE if own else style.GREY)
        axes.annotate(
            three_digits(row.throughput),
            (row.throughput, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            weight="bold" if own else "normal",
            color=style.BLUE if own else style.INK,
        )
    axes.set_yticks(range(len(ordered)), [NAMES.get(row.server, row.server) for row in ordered])
    for label, row in zip(axes.get_yticklabels(), ordered, strict=True):
        if row.server == OWN:
            label.set_color(style.BLUE)
            label.set_fontweight("bold")
    # Bars have the same thickness in every panel.
    axes.set_ylim(len(ordered) - bars - 0.6, len(ordered) - 0.4)
    axes.set_xlim(0, top * 1.12)
    axes.set_xlabel("images per second")
    first = rows[0]
    target = f" to {first.width} × {first.height}" if first.width and first.height else ""
    axes.set_title(f"{first.image}{target}")
    axes.spines.left.set_visible(False)
    style.grid(axes, "x")


def _conditions(comparison: Comparison) -> str:
    words = ["More is better."]
    settings, machine = comparison.settings, comparison.machine
    if "connections" in settings and "server_cores" in settings:
        cores = settings["server_cores"]
        number = len(cores) if isinstance(cores, list) else cores
        words.append(f"{settings['connections']} connections, {number} cores for each server.")
    if "cpu" in machine:
        words.append(f"{machine['cpu']}.")
    if comparison.commit:
        words.append(f"Commit {comparison.commit}.")
    return " ".join(words)


def three_digits(number: float) -> str:
    """Format a number with three significant digits: 1,234 · 123 · 12.3 · 1.23."""
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"
