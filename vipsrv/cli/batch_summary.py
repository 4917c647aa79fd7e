"""What a batch says at its end: what was done, what failed and why, and how to go on."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from vipsrv.batch.progress import Progress
from vipsrv.batch.report.texts import count_text
from vipsrv.batch.rows import Row
from vipsrv.batch.stores.left_out import LeftOut
from vipsrv.cli.batch_figures import bytes_text
from vipsrv.cli.quantities import span
from vipsrv.cli.retry_codes import OPTION
from vipsrv.printable import printable

SHOWN_FAILURES = 10
"""Failures that the summary lists; the manifest has all."""


@dataclass(slots=True)
class Tally:
    """Counts the rows of a run as they come, and keeps the first failures."""

    done: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    failed: Counter[tuple[int, str]] = field(default_factory=Counter)
    """Failed images by status and code."""
    first_failures: list[Row] = field(default_factory=list)

    def take(self, row: Row) -> None:
        """Count a row."""
        if row.ok:
            self.done += 1
            self.bytes_in += row.bytes
            self.bytes_out += sum(output.bytes for output in row.outputs)
            return
        self.failed[row.status, row.code] += 1
        if len(self.first_failures) < SHOWN_FAILURES:
            self.first_failures.append(row)

    @property
    def failures(self) -> int:
        """How many images have failed."""
        return self.failed.total()


def summary(
    tally: Tally,
    progress: Progress,
    seconds: float,
    *,
    left_out: LeftOut,
    destination: str,
    command: Sequence[str],
    ended: bool,
    limit: int | None = None,
) -> list[str]:
    """Return the lines of the summary. ``ended`` is whether all images were tried, or as many as ``limit``.

    ``command`` is the command line of this run, without the name of the program.
    """
    ended_now = tally.done + tally.failures
    rate = f", {ended_now / seconds:.1f} images/s" if ended_now and seconds else ""
    before = f", {progress.failed_before:,} of them failed before" if progress.failed_before else ""
    counts = (
        f"{'done' if ended else 'stopped'}: {count_text(tally.done, 'image')} done, "
        f"{tally.failures:,} failed, {progress.skipped:,} skipped{before}, in {span(seconds)}{rate}"
    )
    lines = [counts, *(f"note: {note}" for note in progress.notes)]
    if tally.done:
        lines.append(f"bytes: {bytes_text(tally.bytes_in, tally.bytes_out)}")
    if tally.failures:
        causes = (f"{count:,} × {status} {code}" for (status, code), count in tally.failed.most_common())
        lines.append(f"failed: {', '.join(causes)}")
        lines += [
            f"  {row.key}: {row.status} {row.code}: {row.message}".rstrip(": ")
            for row in tally.first_failures
        ]
        if more := tally.failures - len(tally.first_failures):
            lines.append(f"  and {more:,} more; all of them: vipsrv batch report {shlex.quote(destination)}")
    if left_out.count:
        noun = "file or folder" if left_out.count == 1 else "files or folders"
        lines.append(f"not listed: {left_out.count:,} {noun}")
        lines += [f"  {one}" for one in left_out.examples[:SHOWN_FAILURES]]
    if ended and not progress.listed:
        lines.append("no image was listed; vipsrv batch --help says which are (--include, --since …)")
    lines.append(f"manifest: {destination.rstrip('/')}/.vipsrv/parts")
    if not ended:
        lines.append(f"go on: {command_line(command)}")
    elif limit is not None and ended_now >= limit:
        lines.append(f"the limit of {limit:,} images is reached; the next ones: {command_line(command)}")
    elif tally.failures or progress.failed_before:
        lines.append(f"try the failed ones again: {command_line(with_retry(command))}")
    return [printable(line) for line in lines]


def command_line(arguments: Sequence[str]) -> str:
    """Return the arguments as a command for a shell."""
    return shlex.join(["vipsrv", *arguments])


def with_retry(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with ``--retry-failed``."""
    given = any(word == OPTION or word.startswith(f"{OPTION}=") for word in arguments)
    return [*arguments] if given else [*arguments, OPTION]
