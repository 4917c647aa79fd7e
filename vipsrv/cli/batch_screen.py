"""The progress of a batch on a terminal: a bar and two lines under it. Colours follow NO_COLOR."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vipsrv.batch.report.texts import ratio_text
from vipsrv.cli.batch_figures import Figures, RateMeter
from vipsrv.cli.quantities import duration
from vipsrv.printable import printable

_REFRESHES = 4  # a second


class BatchScreen:
    """The terminal while a batch runs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def note(self, text: str) -> None:
        """Write a line above the progress."""
        self._console.print(Text(printable(f"vipsrv batch: {text}")))


@contextmanager
def show_screen(meter: RateMeter) -> Iterator[BatchScreen]:
    """Show the progress within the block; afterwards it is gone from the terminal."""
    console = Console(stderr=True, highlight=False)
    with Live(
        get_renderable=lambda: render(meter.read()),
        console=console,
        refresh_per_second=_REFRESHES,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield BatchScreen(console)


def render(figures: Figures) -> RenderableType:
    """Return the progress: a bar that moves to and fro until the number of images is known."""
    now = figures.progress
    ended = now.done + now.failures + now.skipped
    total = figures.known_total
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(justify="right", no_wrap=True)
    share = "listing" if total is None else f"{ended / total:.0%}" if total else ""
    bar.add_row(ProgressBar(total=total or 1, completed=ended, pulse=total is None), share)
    return Group(bar, _counts(figures), _rates(figures))


def _counts(figures: Figures) -> Text:
    now = figures.progress
    text = Text.assemble((f"{now.done:,}", "bold green"), " done  ", no_wrap=True, overflow="ellipsis")
    text.append(f"{now.failures:,}", "bold red" if now.failures else "")
    text.append(" failed  ")
    text.append(f"{now.skipped:,} skipped  ")
    if figures.left is None:
        text.append(f"{now.listed:,} listed so far  ")
    else:
        text.append(f"{figures.left:,} left  ")
    text.append(f"{now.in_flight:,} in flight")
    return text


def _rates(figures: Figures) -> Text:
    text = Text(f"{figures.images_per_second:.1f} images/s  ", no_wrap=True, overflow="ellipsis")
    text.append(f"{figures.bytes_per_second / 1e6:.1f} MB/s  ")
    if figures.ratio is not None:
        text.append(f"ratio {ratio_text(figures.ratio)}  ")
    text.append(f"{duration(figures.elapsed)} so far")
    if figures.seconds_left is not None:
        text.append(f", about {duration(figures.seconds_left)} left")
    return text
