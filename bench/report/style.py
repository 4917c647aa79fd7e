"""The style of all charts: one font, few colours that colour-blind readers can tell apart, a white card.

The colours are those of M. Okabe and K. Ito, "Color Universal Design" (2008). The card is white in the file
itself, so that a chart reads the same on a light and on a dark page.
"""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

BLUE = "#0072B2"
VERMILION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREY = "#B3B8BF"
LIGHT = "#E4E7EB"
INK = "#1F2933"
MUTED = "#5F6B7A"

LINES = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, INK)
MARKERS = "osD^vPX*"
"""One more than there are colours, so that the first 56 lines all look different."""

_LABEL_POINTS = 12.0
_LABEL_SIZE = 9.0
_LABEL_GAP = 8.0

_SETTINGS = {
    "svg.hashsalt": "vipsrv",  # so that the same data gives the same bytes
    "svg.fonttype": "path",  # a viewer's fonts could be wider than the space left for the text
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "grid.color": LIGHT,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "hatch.linewidth": 0.6,
}


@contextmanager
def drawn() -> Iterator[None]:
    """Apply the style within the ``with``; other users of matplotlib are not affected."""
    with mpl.rc_context(_SETTINGS):  # type: ignore[arg-type]  # its keys are a closed list of literals
        yield


def headline(figure: Figure, title: str, below: str) -> None:
    """Write a title over the chart, and a line that says which direction is better and how it was measured.

    Both fit in the 0.85 inches that a chart has above its panels.
    """
    height = figure.get_figheight()
    figure.text(0.15 / figure.get_figwidth(), 1 - 0.2 / height, title, fontsize=14, weight="bold", va="top")
    figure.text(0.15 / figure.get_figwidth(), 1 - 0.52 / height, below, fontsize=9.5, color=MUTED, va="top")


def grid(axes: Axes, axis: str) -> None:
    """Draw faint grid lines across one axis."""
    axes.grid(axis="x" if axis == "x" else "y")
    axes.tick_params(length=0)


def label_ends(axes: Axes, ends: Iterable[tuple[float, str, str]]) -> None:
    """Write labels to the right of the panel at the height of their values, without overlaps.

    ``ends`` are value, text and colour. The panel's position and the scale of its axis must be set before.
    """
    apart = _LABEL_POINTS / (axes.bbox.height * 72 / axes.figure.dpi)
    bottom, top = axes.get_ylim()  # this also makes the axis fit its lines
    axes.set_ylim(bottom, top)
    to_share = axes.transData + axes.transAxes.inverted()
    ordered = sorted(ends)
    heights = [float(to_share.transform((0.0, value))[1]) for value, _, _ in ordered]
    for place in range(1, len(heights)):
        heights[place] = max(heights[place], heights[place - 1] + apart)
    limit = 1.0 - apart / 2
    for place in reversed(range(len(heights))):
        heights[place] = min(heights[place], limit)
        limit = heights[place] - apart
    for (_, words, colour), height in zip(ordered, heights, strict=True):
        axes.annotate(
            words,
            (1.0, height),
            xytext=(_LABEL_GAP, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
            fontsize=_LABEL_SIZE,
            color=colour,
            weight="bold",
            annotation_clip=False,
        )


def look(number: int) -> tuple[str, str]:
    """Colour and marker of the line or server with this index."""
    return LINES[number % len(LINES)], MARKERS[number % len(MARKERS)]


def label_inches(words: Iterable[str]) -> float:
    """The inches that the longest label of ``label_ends`` takes to the right of a panel."""
    return max((inches(one, _LABEL_SIZE) for one in words), default=0.0) + 2 * _LABEL_GAP / 72


def inches(words: str, size: float) -> float:
    """The width of bold text of ``size`` points."""
    drawn = TextPath((0, 0), words, size=size, prop=FontProperties(family="DejaVu Sans", weight="bold"))
    return float(drawn.get_extents().width) / 72


def svg(figure: Figure, title: str) -> bytes:
    """The chart as an SVG file, the same bytes for the same data; screen readers read ``title``."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Title": title, "Date": None, "Creator": None})
    return out.getvalue()
