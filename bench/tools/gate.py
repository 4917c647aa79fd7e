"""Check the metrics of the quick suite against the limits that are kept with the code.

    python -m pytest bench --quick --benchmark-json result.json
    python -m bench.tools.gate result.json [--limits bench/limits.toml] [--again] [--output comparison.md]

A limit names a metric of a row, the ``value`` it had, the ``tolerance`` by which it may get worse (0.1 is a
tenth of the value) and a line ``why``. All metrics are ratios within one run, or counts, so that they hold
on any machine. The exit code is 1 if a metric is worse than allowed, or if a row or metric that has a limit
is not in the result; each is reported in a sentence. A metric that is better than its value by more than the
tolerance is reported, because its limit no longer protects it, but does not fail.

Ratios of CPU time are noisy, those of time by the clock more so, and so are counts that depend on
scheduling: how often a process had to wait, or in how many pieces an image arrived. With ``--again``, a row
in which such a metric fails is measured once more, and the second measurement counts for the noisy metrics
of that row. The others get no second measurement. If the rows cannot be measured again, the first
measurement counts, and the report says so.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import BENCH, ROOT
from bench.arguments import in_a_folder

Rows = Mapping[str, Mapping[str, Any]]
"""The ``extra_info`` of each row, by the row's name."""


class NotMeasured(Exception):
    """The rows could not be measured again; the message says why."""


class Worse(StrEnum):
    """The direction in which a metric gets worse."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that can have a limit: its description, and in which direction it gets worse.

    A ``noisy`` one is measured again before it fails.
    """

    words: str
    worse: Worse
    noisy: bool = False


METRICS: Mapping[str, Metric] = {
    "cpu_over_bare": Metric("CPU over the bare loop's", Worse.HIGHER, noisy=True),
    "cpu_over_floor": Metric("CPU over that of the codecs alone", Worse.HIGHER, noisy=True),
    "gateway_over_bare": Metric("the gateway's CPU over the bare loop's", Worse.HIGHER, noisy=True),
    "cpu_over_binary": Metric("CPU over that of the binary protocol", Worse.HIGHER, noisy=True),
    "cpu_over_direct": Metric(
        "CPU of a batch and its server over that of bare requests", Worse.HIGHER, noisy=True
    ),
    "cpu_over_none": Metric("CPU over that without idle connections", Worse.HIGHER, noisy=True),
    "throughput_over_bare": Metric("the throughput over that of the bare loops", Worse.LOWER, noisy=True),
    "throughput_over_none": Metric(
        "the throughput over that without idle connections", Worse.LOWER, noisy=True
    ),
    "client_over_socket": Metric("the client's CPU over a bare socket's", Worse.HIGHER, noisy=True),
    "open_close_over_bare": Metric(
        "CPU of opening and closing a connection over a bare server's", Worse.HIGHER, noisy=True
    ),
    "idle_kb": Metric("memory of an idle connection in 1000 bytes", Worse.HIGHER, noisy=True),
    "split_over_joined": Metric(
        "the time of a request in two writes over that of one in a single write", Worse.HIGHER, noisy=True
    ),
    "start_over_bare": Metric("CPU of a start over that of Python with pyvips", Worse.HIGHER, noisy=True),
    "cpu_last_over_first": Metric(
        "CPU at the last point of the axis over that at the first", Worse.HIGHER, noisy=True
    ),
    "memory_last_over_first": Metric(
        "peak memory at the last point of the axis over that at the first", Worse.HIGHER, noisy=True
    ),
    "compression_ratio": Metric("the compression ratio", Worse.LOWER),
    "ssim": Metric("SSIM to the whole decode", Worse.LOWER),
    "colour_difference": Metric("the difference of colours to the whole decode", Worse.HIGHER),
    "gateway_transfers": Metric(
        "system calls of the gateway that move bytes, a request", Worse.HIGHER, noisy=True
    ),
    "gateway_waits": Metric("voluntary context switches of the gateway a request", Worse.HIGHER, noisy=True),
}


@dataclass(frozen=True, slots=True)
class Limit:
    """One line of the limits."""

    row: str
    metric: str
    value: float
    tolerance: float
    why: str

    @property
    def allowed(self) -> float:
        """The worst value that passes."""
        sign = 1 if METRICS[self.metric].worse is Worse.HIGHER else -1
        return self.value * (1 + sign * self.tolerance)


class State(StrEnum):
    """The result of checking a limit."""

    KEPT = "kept"
    SLACK = "slack"
    WORSE = "WORSE"
    MISSING = "MISSING"
    UNMEASURED = "not measurable here"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for one limit. ``measured`` is ``None`` if there is no value; ``sentence`` says what to
    report.
    """

    limit: Limit
    measured: float | None
    state: State
    sentence: str = ""

    @property
    def failed(self) -> bool:
        """Whether this fails the gate."""
        return self.state in {State.WORSE, State.MISSING}


def read_limits(text: str) -> list[Limit]:
    """Parse limits from TOML: one table a row, in it one line a metric.

    Raises ``ValueError`` for anything else, such as an unknown metric.
    """
    limits = []
    for row, metrics in tomllib.loads(text).items():
        for metric, entry in metrics.items():
            if metric not in METRICS:
                known = ", ".join(METRICS)
                raise ValueError(f"{row}: {metric} is not a metric that can have a limit; known are {known}")
            if set(entry) != {"value", "tolerance", "why"}:
                raise ValueError(f"{row}: {metric} needs a value, a tolerance and a why, and nothing else")
            limits.append(
                Limit(row, metric, float(entry["value"]), float(entry["tolerance"]), str(entry["why"]))
            )
    if not limits:
        raise ValueError("there are no limits")
    return limits


def read_rows(path: Path) -> dict[str, Mapping[str, Any]]:
    """Read the rows from a JSON file of pytest-benchmark. Raises ``OSError`` and ``ValueError``."""
    try:
        return {row["fullname"]: row["extra_info"] for row in json.loads(path.read_bytes())["benchmarks"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a result of pytest-benchmark: {error!r}") from None


def judge(limit: Limit, rows: Rows) -> Verdict:
    """Check one limit."""
    row = rows.get(limit.row)
    if row is None or limit.metric not in row:
        what = "The row" if row is None else limit.metric
        return Verdict(limit, None, State.MISSING, f"{limit.row}: {what} has a limit and was not measured.")
    measured = row[limit.metric]
    if measured is None:
        why = row.get("missing", {}).get(limit.metric)
        if why is None:
            return Verdict(
                limit, None, State.MISSING, f"{limit.row}: {limit.metric} is empty, and nothing says why."
            )
        return Verdict(limit, None, State.UNMEASURED, f"{limit.row}: {limit.metric} is not compared: {why}.")
    metric = METRICS[limit.metric]
    change = measured / limit.value - 1
    worse_by = change if metric.worse is Worse.HIGHER else -change
    facts = f"{metric.words} ({limit.metric}) is {measured:.4g}, {_percent(change)} {limit.value:.4g}"
    if worse_by > limit.tolerance:
        bound = "at most" if metric.worse is Worse.HIGHER else "at least"
        return Verdict(
            limit,
            measured,
            State.WORSE,
            f"{limit.row}: {facts}, which is worse than allowed: {limit.tolerance:.1%}, "
            f"so {bound} {limit.allowed:.4g}.",
        )
    if -worse_by > limit.tolerance:
        return Verdict(
            limit,
            measured,
            State.SLACK,
            f"{limit.row}: {facts}: better by more than the tolerance of {limit.tolerance:.1%}, so the limit "
            "is slack and its value should be renewed.",
        )
    return Verdict(limit, measured, State.KEPT)


def judge_all(
    limits: Iterable[Limit], rows: Rows, again: Callable[[list[str]], Rows] | None = None
) -> list[Verdict]:
    """Check all limits.

    ``again`` measures rows once more; it is called for those in which a noisy metric fails. Raises what
    ``again`` raises.
    """
    verdicts = [judge(limit, rows) for limit in limits]

    def may_be_noise(verdict: Verdict) -> bool:
        return verdict.state is State.WORSE and METRICS[verdict.limit.metric].noisy

    doubtful = list(dict.fromkeys(verdict.limit.row for verdict in verdicts if may_be_noise(verdict)))
    if again is None or not doubtful:
        return verdicts
    second = again(doubtful)
    return [
        judge(verdict.limit, second)
        if verdict.limit.row in doubtful and METRICS[verdict.limit.metric].noisy
        else verdict
        for verdict in verdicts
    ]


def measure_again(names: list[str]) -> Rows:
    """Measure these rows once more by the quick suite. Raises ``NotMeasured``."""
    print(f"Measuring again, because times and waits are noisy: {', '.join(names)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="vipsrv-bench-") as folder:
        result = Path(folder) / "result.json"
        rows = [str(BENCH / name) for name in names]
        command = [sys.executable, "-m", "pytest", "--quiet", *rows]
        command += ["--quick", "--benchmark-json", str(result)]
        try:
            subprocess.run(command, check=True, cwd=ROOT)
            return read_rows(result)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise NotMeasured(
                f"The rows could not be measured again, so the first measurement counts: {error}"
            ) from None


def report(verdicts: list[Verdict]) -> str:
    """Write the comparison as Markdown: the sentences first, then a table of all limits."""
    failed = [verdict for verdict in verdicts if verdict.failed]
    count = f"{len(verdicts)} limits"
    lines = [f"**{len(failed)} of {count} not kept.**" if failed else f"**All of {count} kept.**", ""]
    lines += [f"- {verdict.sentence}" for verdict in verdicts if verdict.sentence]
    lines += [
        "",
        "| row | metric | limit | measured | allowed | |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for verdict in verdicts:
        limit = verdict.limit
        measured = "" if verdict.measured is None else f"{verdict.measured:.4g}"
        cells = [
            limit.row,
            limit.metric,
            f"{limit.value:.4g}",
            measured,
            f"{limit.allowed:.4g}",
            verdict.state,
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _percent(change: float) -> str:
    if change == 0:
        return "the same as"
    return f"{abs(change):.1%} {'above' if change > 0 else 'below'}"


def main(
    result: Annotated[Path, typer.Argument(help="The JSON that the quick suite wrote.")],
    limits: Annotated[Path, typer.Option(help="The limits.")] = BENCH / "limits.toml",
    *,
    again: Annotated[
        bool, typer.Option("--again", help="Measure rows once more if a noisy metric fails.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Write the comparison to this file, too.", callback=in_a_folder),
    ] = None,
) -> None:
    """Print the comparison; exit with 1 if a limit is not kept."""
    try:
        known, rows = read_limits(limits.read_text()), read_rows(result)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    try:
        text = report(verdicts := judge_all(known, rows, measure_again if again else None))
    except NotMeasured as reason:
        text = f"{reason}\n\n" + report(verdicts := judge_all(known, rows))
    print(text, end="", flush=True)
    if output is not None:
        output.write_text(text)
    raise typer.Exit(1 if any(verdict.failed for verdict in verdicts) else 0)


if __name__ == "__main__":
    typer.run(main)
