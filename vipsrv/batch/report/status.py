"""The status of a destination: what is done, what has failed, whether a run is at work, and how to go on."""

import json
import shlex
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vipsrv.batch.manifest.manifest import Manifest
from vipsrv.batch.manifest.run_lock import Holder
from vipsrv.batch.manifest.run_record import RunEnd, RunRecord
from vipsrv.batch.report.figures import Figures, RunFigures, figures_of
from vipsrv.batch.report.texts import count_text, duration_text, ms_text, ratio_text, size_text, time_text
from vipsrv.batch.stores.interface import Destination

_WIDTH = 13
"""Characters of the first column."""

_RUNS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Unpublished:
    """The journals on this machine: rows that are not in a part yet."""

    shards: int
    done: int
    failed: int
    faults: tuple[str, ...]

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.done + self.failed


@dataclass(frozen=True, slots=True)
class Status:
    """All that is known of a destination. ``running`` is the run of this machine that is at work."""

    url: str
    figures: Figures
    runs: Sequence[RunRecord]
    unpublished: Unpublished
    running: Holder | None


async def status_of(destination: Destination) -> Status:
    """Read the manifest of a destination. Raises ``BatchError``."""
    manifest = Manifest(destination)
    return Status(
        destination.url,
        await figures_of(manifest),
        await manifest.runs(),
        _unpublished(manifest),
        manifest.running(),
    )


def _unpublished(manifest: Manifest) -> Unpublished:
    done = failed = 0
    faults: list[str] = []
    journals = manifest.unpublished()
    for _, content in journals:
        done += sum(row.ok for row in content.rows)
        failed += sum(not row.ok for row in content.rows)
        faults += content.faults
    return Unpublished(len(journals), done, failed, tuple(faults))


def status_json(status: Status) -> dict[str, Any]:
    """Return a status as JSON: names are stable, later versions may add some."""
    figures, running = status.figures, status.running
    return {
        "destination": status.url,
        "done": figures.done,
        "failed": figures.failures_count,
        "results": figures.results,
        "bytes_in": figures.bytes_in,
        "bytes_out": figures.bytes_out,
        "ratio": figures.ratio,
        "failed_by_code": [
            {"status": number, "code": code, "images": count}
            for (number, code), count in figures.failed.most_common()
        ],
        "parts": figures.parts,
        "options": [
            {
                "digest": digest,
                "outputs": _json_or_text(one.facts.outputs),
                "done": one.done,
                "failed": one.failed,
            }
            for digest, one in sorted(figures.options.items())
        ],
        "runs": [asdict(one) for one in runs_of(status)],
        "unpublished": {
            "shards": status.unpublished.shards,
            "done": status.unpublished.done,
            "failed": status.unpublished.failed,
            "faults": list(status.unpublished.faults),
        },
        "running": None if running is None else {"pid": running.pid, "run": running.run},
        "next": next_steps(status),
    }


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # another program has written it
        return text


def status_lines(status: Status) -> Iterator[str]:
    """Yield the lines that a person reads."""
    figures, rows = status.figures, status.unpublished
    yield status.url
    if not figures.parts and not rows.rows and not status.runs:
        yield _line("", "no batch has been here")
        return
    yield _line("done", f"{count_text(figures.done, 'image')}, {count_text(figures.results, 'result')}")
    yield _line("failed", count_text(figures.failures_count, "image"))
    for (number, code), count in figures.failed.most_common():
        yield _line("", f"{count:>12,}  {number} {code}")
    if figures.ratio is not None:
        yield _line(
            "bytes",
            f"{size_text(figures.bytes_in)} of images → {size_text(figures.bytes_out)} of results "
            f"(ratio {ratio_text(figures.ratio)})",
        )
    if figures.ms.total:
        yield _line(
            "an image took",
            f"{ms_text(figures.ms.quantile(0.5))} (median), {ms_text(figures.ms.quantile(0.99))} "
            "(99 of 100 took less)",
        )
    yield from _run_lines(status)
    if rows.rows or rows.shards:
        yield _line(
            "journals",
            f"{count_text(rows.rows, 'row')} of {count_text(rows.shards, 'shard')}, not yet in a part",
        )
    for fault in rows.faults:
        yield _line("damaged", fault)
    yield from next_steps(status)
    if figures.failed:
        yield f"The reasons: vipsrv batch report {shlex.quote(status.url)}"


def next_steps(status: Status) -> list[str]:
    """Return what one may do next, in sentences."""
    if status.running is not None:
        return []
    steps = []
    last = status.runs[-1] if status.runs else None
    if last is not None and last.end is RunEnd.NOT_YET:
        elsewhere = "" if last.host == socket.gethostname() else f", or is at work on {last.host}"
        steps.append(f"The last run was killed{elsewhere}. The same command goes on with what is missing.")
    elif last is not None and last.end is not RunEnd.COMPLETE:
        reason = f": {last.reason}" if last.reason else ""
        ended = "was stopped" if last.end is RunEnd.STOPPED else "failed"
        steps.append(f"The last run {ended}{reason}. The same command goes on with what is missing.")
    elif status.unpublished.rows:
        steps.append("A run was killed. The same command goes on with what is missing.")
    failed = status.figures.failed
    if failed:
        codes = Counter[str]()
        for (_, code), count in failed.items():
            codes[code] += count
        steps.append(
            "Failed images are skipped. The same command with --retry-failed does them again, with "
            f"--retry-failed {codes.most_common(1)[0][0]} only those of one code."
        )
    return steps


@dataclass(frozen=True, slots=True)
class RunView:
    """A run, from its record and its rows. Times are milliseconds since the epoch.

    ``done`` and ``failed`` count the images whose latest row is of this run. ``end`` is empty if nothing but
    its rows is known.
    """

    run: str
    source: str
    started: int
    ended: int | None
    end: str
    reason: str
    done: int
    failed: int

    @property
    def seconds(self) -> float:
        """How long it took, as far as that is known."""
        return max(0, (self.ended or self.started) - self.started) / 1000

    @property
    def rate(self) -> float | None:
        """Images a second."""
        return (self.done + self.failed) / self.seconds if self.seconds else None


def runs_of(status: Status) -> list[RunView]:
    """Return all runs by their start."""
    records = {one.run: one for one in status.runs}
    views = []
    for run in sorted({*records, *status.figures.runs}):
        rows, record = status.figures.runs.get(run, RunFigures()), records.get(run)
        views.append(
            RunView(
                run,
                source=record.source if record else "",
                started=record.started if record else rows.first_ended,
                ended=(record.ended if record else None) or rows.last_ended or None,
                end=str(record.end) if record else "",
                reason=record.reason if record else "",
                done=rows.done,
                failed=rows.failed,
            )
        )
    return views


def run_text(run: RunView) -> str:
    """Return a run as a line: when, how many images, how fast, and how it has ended."""
    parts = [time_text(run.started) if run.started else run.run]
    if run.source:
        parts.append(f"of {run.source}")
    parts.append(count_text(run.done + run.failed, "image"))
    if run.rate is not None:
        parts.append(f"{duration_text(run.seconds)}, {run.rate:,.1f} images/s")
    if run.end:
        parts.append({"not yet": "no end is known"}.get(run.end, run.end))
    return ", ".join(parts)


def _run_lines(status: Status) -> Iterator[str]:
    runs = runs_of(status)
    if len(runs) > _RUNS_SHOWN:
        yield _line("runs", f"{len(runs):,}, the last {_RUNS_SHOWN}:")
    for number, one in enumerate(runs[-_RUNS_SHOWN:]):
        yield _line("runs" if not number and len(runs) <= _RUNS_SHOWN else "", run_text(one))
    if status.running is not None:
        yield _line("now", f"run {status.running.run} is at work (process {status.running.pid})")


def _line(name: str, text: str) -> str:
    return f"  {name:<{_WIDTH}}  {text}"
