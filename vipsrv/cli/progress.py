"""Shows how far work on many images is: a bar on a terminal, otherwise a line from time to time."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import typer

from vipsrv.cli.many_report import Tally
from vipsrv.cli.quantities import duration, size

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LINE_SECONDS = 10.0
"""Seconds between two lines where there is no terminal."""


class Progress(Protocol):
    """Shows a tally again and again."""

    def show(self, tally: Tally) -> None:
        """Show the present state; called after each image and at least once a second."""

    def note(self, text: str) -> None:
        """Write a line that stays."""


class Total:
    """Counts what there is to do, in a thread beside the work; ``value`` is ``None`` until it is known."""

    def __init__(self, items: Iterable[object]) -> None:
        self.value: int | None = None
        self._items = items
        self._wanted = True
        self._thread = threading.Thread(target=self._count, name="count", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._wanted = False

    def _count(self) -> None:
        count = 0
        for _ in self._items:
            if not self._wanted:
                return
            count += 1
        self.value = count


class NoProgress:
    """Shows nothing."""

    def show(self, tally: Tally) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Write nothing."""


class ProgressLines:
    """Writes a line to standard error after every ``LINE_SECONDS``."""

    def __init__(self, program: str, total: Total, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._program = program
        self._total = total
        self._clock = clock
        self._next = clock() + LINE_SECONDS

    def show(self, tally: Tally) -> None:
        """Write a line if it is time for one."""
        now = self._clock()
        if now >= self._next:
            self._next = now + LINE_SECONDS
            self.note(progress_text(tally, self._total.value))

    def note(self, text: str) -> None:
        """Write a line at once."""
        typer.echo(f"{self._program}: {text}", err=True)


class ProgressBar:
    """A bar of rich on standard error, which is a terminal."""

    def __init__(self, program: str, bar: "RichProgress", total: Total) -> None:
        self._program = program
        self._bar = bar
        self._total = total
        self._task: TaskID = bar.add_task("", total=None, figures="")

    def show(self, tally: Tally) -> None:
        """Draw the bar again; rich itself draws it a few times a second at most."""
        total = self._total.value
        if total is not None:
            total = max(total, tally.ended)
        figures = "\n".join(progress_lines(tally, total))
        self._bar.update(self._task, completed=tally.ended, total=total, figures=figures)

    def note(self, text: str) -> None:
        """Write a line above the bar."""
        self._bar.console.print(f"{self._program}: {text}", markup=False, highlight=False)


@contextmanager
def open_progress(program: str, items: Iterable[object], *, quiet: bool) -> Iterator[Progress]:
    """Show progress on standard error within the block; ``items`` are counted to know how much is left."""
    if quiet or sys.stderr is None:
        yield NoProgress()
        return
    with Total(items) as total:
        if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            yield ProgressLines(program, total)
            return
        # Imported here because a single image, and work without a terminal, do not need them.
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, TextColumn  # noqa: PLC0415
        from rich.progress import Progress as RichProgress  # noqa: PLC0415
        from rich.table import Column  # noqa: PLC0415

        # What does not fit into a narrow terminal is cut off, so that there are two lines.
        text = TextColumn("{task.fields[figures]}", markup=False, table_column=Column(no_wrap=True))
        columns = BarColumn(bar_width=20), text
        with RichProgress(
            *columns, console=Console(stderr=True), transient=True, refresh_per_second=5
        ) as bar:
            yield ProgressBar(program, bar, total)


def progress_text(tally: Tally, total: int | None) -> str:
    """Return the state as one line: images, failures and the time that is left, rate, bytes and ratio."""
    return ", ".join(progress_lines(tally, total))


def progress_lines(tally: Tally, total: int | None) -> tuple[str, str]:
    """Return the same as two lines, which have room beside a bar in 80 columns."""
    of_total = "" if total is None else f" of {max(total, tally.ended)}"
    counts = [f"{tally.ended}{of_total} images"]
    if tally.failed:
        counts.append(f"{tally.failed} failed")
    left = tally.seconds_left(total)
    if left is not None:
        counts.append(f"{duration(left)} left")
    sizes = f"{size(tally.original_bytes)} → {size(tally.result_bytes)}"
    if tally.ratio is not None:
        sizes += f" ({tally.ratio:.1f} : 1)"
    return ", ".join(counts), f"{tally.rate:.1f} images/s, {sizes}"
