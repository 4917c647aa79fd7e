"""Whether anything got worse: the figures of the quick suite against limits that are kept with the code.

    python -m pytest bench --quick --benchmark-json result.json
    python -m bench.tools.gate result.json [--limits bench/limits.toml] [--again] [--output comparison.md]

A limit is a figure of a row, the ``value`` that it had, the ``tolerance`` by which it may be worse (0.1 is a
tenth of the value) and a line ``why`` it is that. All figures are ratios within one run, or counts, so that
they hold on any machine. The exit code is 1 where one is worse than allowed, or where a row or figure that
has a limit is not in the result; each is told in a sentence. One that is better than its value by more than
the tolerance has become slack, which is told, too, but fails nothing.

Ratios of CPU time are noisy, those of time by the clock more so, and so is how often a process had to wait,
or in how many pieces an image arrived that its sender was interrupted at.
With ``--again`` a row where such a figure fails is measured once more, and what comes out then counts for
these figures of that row. The others are not given a second chance. Where it cannot be measured again, which
is told, the first figures count.
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
from bench.tools.arguments import in_a_folder

Rows = Mapping[str, Mapping[str, Any]]
"""By the name of a row its ``extra_info``."""


class NotMeasured(Exception):
    """The rows could not be measured again; with the reason as a sentence."""


class Worse(StrEnum):
    """The direction in which a figure gets worse."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, slots=True)
class Figure:
    """What a figure is, in words; where it gets worse; whether it is measured again before it counts."""

    words: str
    worse: Worse
    noisy: bool = False


FIGURES: Mapping[str, Figure] = {
    "cpu_over_bare": Figure("CPU over the bare loop's", Worse.HIGHER, noisy=True),
    "cpu_over_floor": Figure("CPU over that of the codecs alone", Worse.HIGHER, noisy=True),
    "gateway_over_bare": Figure("the gateway's CPU over the bare loop's", Worse.HIGHER, noisy=True),
    "cpu_over_none": Figure("CPU over that without idle connections", Worse.HIGHER, noisy=True),
    "throughput_over_bare": Figure("the throughput over that of the bare loops", Worse.LOWER, noisy=True),
    "throughput_over_none": Figure(
        "the throughput over that without idle connections", Worse.LOWER, noisy=True
    ),
    "client_over_socket": Figure("the client's CPU over a bare socket's", Worse.HIGHER, noisy=True),
    "compression_ratio": Figure("the compression ratio", Worse.LOWER),
    "ssim": Figure("SSIM to the whole decode", Worse.LOWER),
    "colour_difference": Figure("the difference of colours to the whole decode", Worse.HIGHER),
    "gateway_transfers": Figure(
        "system calls of the gateway that move bytes, a request", Worse.HIGHER, noisy=True
    ),
    "gateway_waits": Figure("voluntary context switches of the gateway a request", Worse.HIGHER, noisy=True),
}


@dataclass(frozen=True, slots=True)
class Limit:
    """One line of the limits."""

    row: str
    figure: str
    value: float
    tolerance: float
    why: str

    @property
    def allowed(self) -> float:
        """The worst that passes."""
        sign = 1 if FIGURES[self.figure].worse is Worse.HIGHER else -1
        return self.value * (1 + sign * self.tolerance)


class State(StrEnum):
    """What became of a limit."""

    KEPT = "kept"
    SLACK = "slack"
    WORSE = "WORSE"
    MISSING = "MISSING"
    UNMEASURED = "not measurable here"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A limit, what was measured (``None`` for nothing), and what is to be said of it."""

    limit: Limit
    measured: float | None
    state: State
    sentence: str = ""

    @property
    def failed(self) -> bool:
        """Whether the gate is shut."""
        return self.state in {State.WORSE, State.MISSING}


def read_limits(text: str) -> list[Limit]:
    """The limits of a TOML text: a table a row, in it a line a figure.

    Raises ``ValueError`` for what is none, a figure that is unknown among it.
    """
    limits = []
    for row, figures in tomllib.loads(text).items():
        for figure, entry in figures.items():
            if figure not in FIGURES:
                raise ValueError(f"{row}: {figure} is no figure with a limit; known are {', '.join(FIGURES)}")
            if set(entry) != {"value", "tolerance", "why"}:
                raise ValueError(f"{row}: {figure} needs a value, a tolerance and a why, and nothing else")
            limits.append(
                Limit(row, figure, float(entry["value"]), float(entry["tolerance"]), str(entry["why"]))
            )
    if not limits:
        raise ValueError("there are no limits")
    return limits


def read_rows(path: Path) -> dict[str, Mapping[str, Any]]:
    """The rows of a JSON file of pytest-benchmark. Raises ``OSError`` and ``ValueError``."""
    try:
        return {row["fullname"]: row["extra_info"] for row in json.loads(path.read_bytes())["benchmarks"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no result of pytest-benchmark: {error!r}") from None


def judge(limit: Limit, rows: Rows) -> Verdict:
    """One limit against what was measured."""
    row = rows.get(limit.row)
    if row is None or limit.figure not in row:
        what = "The row" if row is None else limit.figure
        return Verdict(limit, None, State.MISSING, f"{limit.row}: {what} has a limit and was not measured.")
    measured = row[limit.figure]
    if measured is None:
        why = row.get("missing", {}).get(limit.figure)
        if why is None:
            return Verdict(
                limit, None, State.MISSING, f"{limit.row}: {limit.figure} is empty, and nothing says why."
            )
        return Verdict(limit, None, State.UNMEASURED, f"{limit.row}: {limit.figure} is not compared: {why}.")
    figure = FIGURES[limit.figure]
    change = measured / limit.value - 1
    worse_by = change if figure.worse is Worse.HIGHER else -change
    facts = f"{figure.words} ({limit.figure}) is {measured:.4g}, {_percent(change)} {limit.value:.4g}"
    if worse_by > limit.tolerance:
        bound = "at most" if figure.worse is Worse.HIGHER else "at least"
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
            "has become slack and its value should be set anew.",
        )
    return Verdict(limit, measured, State.KEPT)


def judge_all(
    limits: Iterable[Limit], rows: Rows, again: Callable[[list[str]], Rows] | None = None
) -> list[Verdict]:
    """All limits. ``again`` measures rows once more, for those in which a noisy figure is worse.

    Raises what ``again`` raises.
    """
    verdicts = [judge(limit, rows) for limit in limits]

    def may_be_noise(verdict: Verdict) -> bool:
        return verdict.state is State.WORSE and FIGURES[verdict.limit.figure].noisy

    doubtful = list(dict.fromkeys(verdict.limit.row for verdict in verdicts if may_be_noise(verdict)))
    if again is None or not doubtful:
        return verdicts
    second = again(doubtful)
    return [
        judge(verdict.limit, second)
        if verdict.limit.row in doubtful and FIGURES[verdict.limit.figure].noisy
        else verdict
        for verdict in verdicts
    ]


def measure_again(names: list[str]) -> Rows:
    """The rows of these names, measured now by the quick suite. Raises ``NotMeasured``."""
    print(f"Measured again, for times and waits are noisy: {', '.join(names)}", flush=True)
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
                f"The rows could not be measured again, so the first figures count: {error}"
            ) from None


def report(verdicts: list[Verdict]) -> str:
    """The comparison as Markdown: what is to be said first, then every limit in a table."""
    failed = [verdict for verdict in verdicts if verdict.failed]
    count = f"{len(verdicts)} limits"
    lines = [f"**{len(failed)} of {count} not kept.**" if failed else f"**All of {count} kept.**", ""]
    lines += [f"- {verdict.sentence}" for verdict in verdicts if verdict.sentence]
    lines += [
        "",
        "| row | figure | limit | measured | allowed | |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for verdict in verdicts:
        limit = verdict.limit
        measured = "" if verdict.measured is None else f"{verdict.measured:.4g}"
        cells = [
            limit.row,
            limit.figure,
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
        bool, typer.Option("--again", help="Measure rows once more where a noisy figure is worse.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Where the comparison is written, too.", callback=in_a_folder),
    ] = None,
) -> None:
    """Print the comparison; exit with 1 where a limit is not kept."""
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
