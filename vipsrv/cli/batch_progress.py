"""How far a batch has come, while it runs: on a terminal lines that move, otherwise a line every 10 s."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import typer

from vipsrv.cli.batch_figures import RateMeter
from vipsrv.cli.standard_streams import discard_unwritable_errors
from vipsrv.printable import printable

LINE_SECONDS = 10.0
"""Seconds between two lines where standard error is no terminal."""


class Display(Protocol):
    """Where a command writes what a person is to know while it runs."""

    def note(self, text: str) -> None:
        """Write a line that stays."""
        ...


class Notes:
    """Standard error, without any progress."""

    def note(self, text: str) -> None:
        """Write a line. A standard error that is closed or full does not stop the batch."""
        try:
            typer.echo(printable(f"vipsrv batch: {text}"), err=True)
        except OSError:
            discard_unwritable_errors()


@contextmanager
def show_progress(meter: RateMeter, *, quiet: bool, rows_on_terminal: bool) -> Iterator[Display]:
    """Show how far the run has come within the block.

    ``rows_on_terminal`` is whether other lines are written to the same terminal, which lines that move would
    mix with.
    """
    notes = Notes()
    if quiet:
        yield notes
    elif _is_screen() and not rows_on_terminal:
        # Imported here because a batch that is started by a script needs no screen.
        from vipsrv.cli.batch_screen import show_screen  # noqa: PLC0415

        with show_screen(meter) as screen:
            yield screen
    else:
        with _lines(meter, notes):
            yield notes


def _is_screen() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "", None)


@contextmanager
def _lines(meter: RateMeter, notes: Notes) -> Iterator[None]:
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(LINE_SECONDS):
            notes.note(meter.read().line())

    thread = threading.Thread(target=write, name="vipsrv-batch-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
