"""How all charts look: one font, few colours that the colour-blind can tell apart, a white card.

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
"""One more than there are colours, so that no two of the first 56 lines look alike."""

_LABEL_POINTS = 12.0
_LABEL_SIZE = 9.0
_LABEL_GAP = 8.0

_SETTINGS = {
    "svg.hashsalt": "vipsrv",  # the same figures give the same bytes
    "svg.fonttype": "path",  # a viewer's own fonts would be wider or narrower than the space left for them
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
    """Charts made within look alike; what else uses matplotlib is left as it is."""
    with mpl.rc_context(_SETTINGS):  # type: ignore[arg-type]  # its keys are a closed list of literals
        yield


def headline(figure: Figure, title: str, below: str) -> None:
    """A title over the whole chart, and a line that says what is better and how it was measured.

    Each takes a line of the height that the chart has above its panels: 0.85 inches.
    """
    height = figure.get_figheight()
    figure.text(0.15 / figure.get_figwidth(), 1 - 0.2 / height, title, fontsize=14, weight="bold", va="top")
    figure.text(0.15 / figure.get_figwidth(), 1 - 0.52 / height, below, fontsize=9.5, color=MUTED, va="top")


def grid(axes: Axes, axis: str) -> None:
    """Faint lines across one axis."""
    axes.grid(axis="x" if axis == "x" else "y")
    axes.tick_params(length=0)


def label_ends(axes: Axes, ends: Iterable[tuple[float, str, str]]) -> None:
    """Words right of the panel at the height of their value, moved apart where they would overlap.

    ``ends`` are value, words and colour. The panel must have its place and its axis its scale before.
    """
    apart = _LABEL_POINTS / (axes.bbox.height * 72 / axes.figure.dpi)
    bottom, top = axes.get_ylim()  # which also makes the axis fit its lines
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
    """Colour and marker of the line or the server of this number."""
    return LINES[number % len(LINES)], MARKERS[number % len(MARKERS)]


def label_inches(words: Iterable[str]) -> float:
    """What the longest of the words takes right of a panel, where ``label_ends`` writes it."""
    return max((inches(one, _LABEL_SIZE) for one in words), default=0.0) + 2 * _LABEL_GAP / 72


def inches(words: str, size: float) -> float:
    """The width of bold words of ``size`` points."""
    drawn = TextPath((0, 0), words, size=size, prop=FontProperties(family="DejaVu Sans", weight="bold"))
    return float(drawn.get_extents().width) / 72


def svg(figure: Figure, title: str) -> bytes:
    """The chart's file, the same for the same figures; ``title`` is told to screen readers."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Title": title, "Date": None, "Creator": None})
    return out.getvalue()
