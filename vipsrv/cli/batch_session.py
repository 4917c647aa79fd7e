"""One run of a batch on the command line: progress, rows as JSON, signals, the summary and the exit code."""

import errno
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import typer

from vipsrv.address import Address
from vipsrv.batch import BatchRun, Row
from vipsrv.batch.stores.interface import Source
from vipsrv.batch.total_count import TotalCount
from vipsrv.cli.batch_figures import RateMeter
from vipsrv.cli.batch_progress import Display, Notes, show_progress
from vipsrv.cli.batch_summary import Tally, summary
from vipsrv.cli.exit_codes import ExitCode
from vipsrv.cli.standard_streams import discard_unwritable_output, output_named_in_errors
from vipsrv.cli.stop_signals import Stopped, StopSignals


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a run shows, and where.

    ``metrics`` is where to serve the figures for Prometheus, ``limit`` the most images, and ``open_again``
    opens the source once more to count it, if that is possible.

    ``destination`` and ``command``, the command line without the name of the program, are for its messages.
    """

    destination: str
    command: Sequence[str]
    as_json: bool
    quiet: bool
    metrics: str | None
    limit: int | None
    open_again: Callable[[], Source] | None


class RowPrinter:
    """Prints rows as JSON on standard output, each as soon as it is there."""

    def __init__(self) -> None:
        self.fault: OSError | None = None
        """Why no row is printed any more."""

    def take(self, row: Row) -> None:
        """Print a row."""
        # Imported here because most runs print none.
        from vipsrv.batch.manifest.row_json import row_line  # noqa: PLC0415

        if self.fault is not None:
            return
        try:
            with output_named_in_errors():
                sys.stdout.buffer.write(row_line(row))
                sys.stdout.buffer.flush()
        except OSError as error:
            self.fault = error
            discard_unwritable_output()


def run_batch(start: Callable[[], BatchRun], shown: Shown) -> ExitCode | None:
    """Run a batch to its end and return the exit code of the process, ``None`` for success.

    Raises the errors of ``BatchRun``, after the summary, ``OSError`` for standard output, and ``ValueError``
    if nothing can listen for Prometheus.
    """
    if shown.as_json and sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    with StopSignals() as signals:
        try:
            run = start()
            with _metrics(shown.metrics, run) as where, run:
                return _Session(run, shown, signals, where).run()
        except Stopped:
            Notes().note("stopped before it has started")
            return signals.exit_code


def print_estimate(start: Callable[[], BatchRun], shown: Shown, *, sample: int) -> None:
    """Print what a batch would do and take instead of running it. Raises the errors of ``BatchRun``."""
    # Imported here because a batch does not need it.
    from vipsrv.cli.batch_estimate import estimate_json, estimate_lines  # noqa: PLC0415

    found = start().estimate(sample=sample)
    with output_named_in_errors():
        typer.echo(estimate_json(found) if shown.as_json else "\n".join(estimate_lines(found)))


@contextmanager
def _metrics(given: str | None, run: BatchRun) -> Iterator[Address | None]:
    """Serve the figures of a run within the block; the value is where. Raises ``ValueError``."""
    if given is None:
        yield None
        return
    # Imported here because most runs have no listener.
    from vipsrv.batch.metrics import parse_listener, serve_metrics  # noqa: PLC0415

    with ExitStack() as stack:
        try:
            where = stack.enter_context(serve_metrics(parse_listener(given), lambda: run.progress))
        except OSError as error:
            raise ValueError(f"--metrics-listen: {given}: {error.strerror}") from None
        yield where


class _Session:
    def __init__(self, run: BatchRun, shown: Shown, signals: StopSignals, metrics: Address | None) -> None:
        self._run = run
        self._shown = shown
        self._signals = signals
        self._metrics = metrics
        self._tally = Tally()
        self._printer = RowPrinter()
        self._started = time.monotonic()

    def run(self) -> ExitCode | None:
        failed = True
        try:
            with self._display() as display:
                self._signals.running(lambda: self._finish(display))
                self._take_rows()
            failed = False
        finally:
            rows = self._tally.done + self._tally.failures
            if not self._shown.quiet and (rows or not failed):
                self._say_summary(ended=not failed and not self._cut_short)
        if self._printer.fault is not None:
            raise self._printer.fault
        if self._cut_short:
            return self._signals.exit_code
        return ExitCode.REFUSED if self._tally.failures or self._run.left_out.faults else None

    @contextmanager
    def _display(self) -> Iterator[Display]:
        shown = self._shown
        rows_on_terminal = shown.as_json and sys.stdout.isatty()
        with ExitStack() as stack:
            count = None
            if shown.open_again is not None and not shown.quiet:
                count = stack.enter_context(TotalCount(shown.open_again))
            meter = RateMeter(
                lambda: self._run.progress,
                total=lambda: None if count is None else count.value,
                limit=shown.limit,
            )
            display = stack.enter_context(
                show_progress(meter, quiet=shown.quiet, rows_on_terminal=rows_on_terminal)
            )
            if self._metrics is not None and not shown.quiet:
                display.note(f"figures for Prometheus at http://{self._metrics}/metrics")
            yield display

    def _take_rows(self) -> None:
        for row in self._run:
            self._tally.take(row)
            if self._shown.as_json:
                self._printer.take(row)
                if self._printer.fault is not None:
                    self._run.stop()

    def _finish(self, display: Display) -> None:
        """Stop after what is in flight; called in a thread of its own."""
        if not self._shown.quiet:
            display.note("stopping after the images that were sent; once more ends it at once")
        self._run.stop()

    @property
    def _cut_short(self) -> bool:
        """Whether images were left for another run because of a signal or an output that was closed."""
        stopped = self._signals.stopped or self._printer.fault is not None
        return stopped and self._run.progress.left != 0

    def _say_summary(self, *, ended: bool) -> None:
        lines = summary(
            self._tally,
            self._run.progress,
            time.monotonic() - self._started,
            left_out=self._run.left_out,
            destination=self._shown.destination,
            command=self._shown.command,
            ended=ended,
            limit=self._shown.limit,
        )
        if self._shown.as_json:
            typer.echo("\n".join(lines), err=True)
            return
        with output_named_in_errors():
            typer.echo("\n".join(lines))
