"""How the cost of a request grows along each axis: charts, and the exponents in plain words."""

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.report import style
from bench.report.inputs import Axis, Law, Suite
from bench.report.throughput import three_digits

FLAT = 0.05
"""An exponent this close to 0 counts as no growth, and one this close to 1 as growth in proportion."""

COSTS = {
    "cpu_ms": ("CPU of all processes", "CPU ms a request"),
    "gateway_cpu_ms": ("CPU of the gateway", "CPU ms a request"),
    "workers_cpu_ms": ("CPU of the workers", "CPU ms a request"),
    "peak_mb": ("peak memory", "MB"),
    "requests_per_second": ("requests a second", "requests a second"),
}
"""The name and the unit of each cost of a row."""

_COLOURS = dict(zip(COSTS, (style.BLUE, style.GREEN, style.ORANGE, style.BLUE, style.BLUE), strict=True))
_CPU = ("cpu_ms", "workers_cpu_ms", "gateway_cpu_ms")


def axes_of(suites: Iterable[Suite]) -> list[Axis]:
    """The axes of all files; of several rows of one name that which was measured last."""
    found: dict[str, Axis] = {}
    for suite in sorted(suites, key=lambda suite: suite.datetime):
        found |= suite.axes()
    return list(found.values())


def meaning(exponent: float) -> str:
    """What an exponent says, in plain words."""
    if abs(exponent) <= FLAT:
        return "does not grow"
    times = f"ten times as much multiplies it by {three_digits(10**exponent)}"
    if exponent < 0:
        return f"falls: {times}"
    if abs(exponent - 1) <= FLAT:
        return "grows in proportion"
    return f"grows {'more' if exponent > 1 else 'less'} than in proportion: {times}"


def sentences(axis: Axis) -> list[str]:
    """What the exponents of an axis mean, a sentence for each cost that is drawn."""
    told = []
    first, last = axis.points[0]["x"], axis.points[-1]["x"]
    for name in drawn(axis):
        law = axis.growth[name]
        words, unit = COSTS[name]
        told.append(
            f"{words[0].upper()}{words[1:]} {meaning(law.exponent)} from {_number(first)} to {_number(last)} "
            f"{axis.unit} (exponent {law.text}). At the large end it {meaning(law.exponent_at_end)} "
            f"(exponent {law.exponent_at_end:.2f}): {_each(law, axis.unit, unit)}."
        )
    return told


def drawn(axis: Axis) -> list[str]:
    """The costs that are of interest: the throughput only for cores, as it is by the clock."""
    return [name for name in COSTS if name != "requests_per_second" or axis.axis == "cores"]


def chart(axis: Axis) -> Figure:
    """Draw CPU time and memory over x, both axes logarithmic, with the line of each power law."""
    groups: list[tuple[str, Sequence[str]]] = [
        ("CPU milliseconds a request", _CPU),
        ("peak memory in MB", ("peak_mb",)),
    ]
    if axis.axis == "cores":
        groups.append(("requests a second", ("requests_per_second",)))
    figure = Figure(figsize=(4.4 * len(groups), 4.2))
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    figure.subplots_adjust(left=0.75 / figure.get_figwidth(), right=0.97, top=0.76, bottom=0.22, wspace=0.3)
    for panel, (title, names) in zip(panels, groups, strict=True):
        for name in names:
            _line(panel, axis, name)
        panel.set_title(title)
        _logarithmic(panel, axis)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="lower left",
        bbox_to_anchor=(0.1 / figure.get_figwidth(), 0.0),
        ncols=len(_CPU),
        fontsize=9,
    )
    style.headline(
        figure,
        f"Cost of a request over {axis.axis}",
        "Lines are power laws by least squares; their exponents are in the legend and above. Less is better.",
    )
    return figure


def _line(panel: Axes, axis: Axis, name: str) -> None:
    x, y, law = axis.values("x"), axis.values(name), axis.growth[name]
    label = f"{COSTS[name][0]}: exponent {law.text}"
    panel.plot(x, y, "o", color=_COLOURS[name], label=label)
    # The line of least squares goes through the middle of the points, in logarithms.
    middle = _geometric_mean(x), _geometric_mean(y)
    ends = [x[0], x[-1]]
    panel.plot(
        ends,
        [middle[1] * (one / middle[0]) ** law.exponent for one in ends],
        color=_COLOURS[name],
        linewidth=1.2,
        alpha=0.7,
    )
    if name not in _CPU:
        panel.annotate(f"exponent {law.text}", (0.03, 0.95), xycoords="axes fraction", va="top", fontsize=9)


def _logarithmic(panel: Axes, axis: Axis) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    low, high = panel.get_ylim()
    # At least a factor of ten, so that noise does not look like growth.
    centre = (low * high) ** 0.5
    panel.set_ylim(min(low, centre / 10**0.5), max(high, centre * 10**0.5))
    panel.set_xlabel(axis.unit)
    for one in (panel.xaxis, panel.yaxis):
        one.set_major_locator(LogLocator(10, numticks=12))
        one.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
        one.set_minor_formatter(NullFormatter())
    style.grid(panel, "y")


def _each(law: Law, unit: str, of: str) -> str:
    return f"each further {unit.removesuffix('s')} adds {law.each:.2g} {of}"


def _geometric_mean(values: Sequence[float]) -> float:
    product = 1.0
    for value in values:
        product *= value ** (1 / len(values))
    return product


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
