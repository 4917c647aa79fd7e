"""How the cost of a request grows along each axis: charts, and the exponents in plain words."""

import math
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.report import style
from bench.report.inputs import Axis, Suite
from bench.report.throughput import three_digits

FLAT = 0.05
"""An exponent this close to 0 counts as no growth, and one this close to 1 as growth in proportion."""

COSTS = {
    "cpu_ms": "CPU of all processes",
    "gateway_cpu_ms": "CPU of the gateway",
    "workers_cpu_ms": "CPU of the workers",
    "peak_mb": "peak memory",
    "requests_per_second": "requests a second",
}
"""The costs of a row."""

_PANELS = (
    (
        "CPU ms a request",
        {"cpu_ms": style.BLUE, "workers_cpu_ms": style.ORANGE, "gateway_cpu_ms": style.GREEN},
    ),
    ("peak memory in MB", {"peak_mb": style.BLUE}),
    ("requests a second", {"requests_per_second": style.BLUE}),
)
_SHORT = 2
"""With so few points there is no separate large end."""
_READABLE = 0.1
_WITH_DIGITS = 30.0
"""An axis that spans less than this factor has labels between the powers of ten."""


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
    first, last = (f"{_number(axis.points[at]['x'])}" for at in (0, -1))
    for name in drawn(axis):
        law, words = axis.growth[name], COSTS[name]
        sentence = f"{words[0].upper()}{words[1:]} {meaning(law.exponent)}"
        sentence += f", from {first} to {last} {axis.unit} (exponent {law.text})."
        if len(axis.points) > _SHORT:
            sentence += (
                f" Between the two largest it {meaning(law.exponent_at_end)} ({law.exponent_at_end:.2f})"
            )
            if law.exponent_at_end > FLAT:
                sentence += f": each further {axis.unit.removesuffix('s')} adds {_amount(law.each, name)}"
            sentence += "."
        told.append(sentence)
    return told


def drawn(axis: Axis) -> list[str]:
    """The costs that are of interest: the throughput only for cores, as it is by the clock."""
    return [name for name in COSTS if name != "requests_per_second" or axis.axis == "cores"]


def chart(axis: Axis) -> Figure:
    """Draw CPU time and memory over x, both axes logarithmic, with the line of each power law."""
    panels = [(title, names) for title, names in _PANELS if set(names) <= set(drawn(axis))]
    width = 0.3 + 4.2 * len(panels)
    figure = Figure(figsize=(width, 4.4))
    figure.subplots_adjust(left=0.7 / width, right=1 - 0.2 / width, top=0.76, bottom=0.3, wspace=0.25)
    for axes, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, colour in names.items():
            _line(axes, axis, name, colour)
        axes.set_title(title)
        _logarithmic(axes, axis)
        # Below the panel, where no point can be.
        axes.legend(loc="upper left", bbox_to_anchor=(-0.05, -0.17), fontsize=8.5, borderaxespad=0.0)
    style.headline(
        figure,
        f"Cost of a request over {axis.axis}",
        "Points are measured; a dashed line is a power law by least squares, whose exponent is told.",
    )
    return figure


def _line(axes: Axes, axis: Axis, name: str, colour: str) -> None:
    x, y, law = axis.values("x"), axis.values(name), axis.growth[name]
    axes.plot(x, y, "o-", color=colour, linewidth=1.5, label=f"{COSTS[name]}: exponent {law.text}")
    # The line of least squares goes through the middle of the points, in logarithms.
    middle = _geometric_mean(x), _geometric_mean(y)
    ends = [x[0], x[-1]]
    fitted = [middle[1] * (one / middle[0]) ** law.exponent for one in ends]
    axes.plot(ends, fitted, "--", color=colour, linewidth=1.0, alpha=0.6)


def _logarithmic(axes: Axes, axis: Axis) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    # At least a factor of ten, so that noise does not look like growth.
    centre = (low * high) ** 0.5
    low, high = min(low, centre / 10**0.5), max(high, centre * 10**0.5)
    axes.set_ylim(low, high)
    axes.set_xlabel(axis.unit)
    x = axis.values("x")
    for one, factor in ((axes.xaxis, x[-1] / x[0]), (axes.yaxis, high / low)):
        one.set_major_locator(
            LogLocator(10, (1.0, 2.0, 5.0) if factor < _WITH_DIGITS else (1.0,), numticks=12)
        )
        one.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
        one.set_minor_formatter(NullFormatter())
    style.grid(axes, "y")


def _amount(value: float, name: str) -> str:
    """A cost of one further unit of x, in a unit of a readable size."""
    if name == "requests_per_second":
        return f"{value:.3g} requests a second"
    unit, small = ("MB", "KB") if name == "peak_mb" else ("ms", "µs")
    return f"{value:.2g} {unit}" if value >= _READABLE else f"{value * 1e3:.2g} {small}"


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
