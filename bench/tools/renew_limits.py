"""Set new values for the limits, after a change on purpose or when a limit has become slack.

    python -m bench.tools.renew_limits result.json [result.json …] [--limits bench/limits.toml]

Each value becomes the median of the results; values that change by more than their tolerance are printed.
Tolerances and reasons are not changed; a reason that is no longer true has to be rewritten by hand.
"""

import json
import re
import statistics
from pathlib import Path
from typing import Annotated

import typer

from bench import BENCH
from bench.tools.gate import Limit, Rows, read_limits, read_rows

_LINE = re.compile(r"(\w+)( = \{ value = )[^,]+(,.*)")


def renewed(text: str, values: dict[tuple[str, str], float]) -> str:
    """Replace the values in the TOML ``text``, by row and metric; everything else in it stays.

    Raises ``ValueError`` if a limit is not on a line of its own.
    """
    lines = []
    left = dict(values)
    row = ""
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if line.startswith('["'):
            row = json.loads(line)[0]  # a header of TOML with one name is an array of JSON
        if match is None or (row, match[1]) not in left:
            lines.append(line)
            continue
        lines.append(f"{match[1]}{match[2]}{left.pop((row, match[1])):.4g}{match[3]}")
    if left:
        raise ValueError(f"not found on a line of its own: {', '.join(' '.join(key) for key in left)}")
    return "\n".join(lines) + "\n"


def medians(limits: list[Limit], results: list[Rows]) -> dict[tuple[str, str], float]:
    """The medians of the results, by row and metric. Raises ``ValueError`` for a limit that no result has."""
    values = {}
    for limit in limits:
        measured = [result.get(limit.row, {}).get(limit.metric) for result in results]
        metrics = [metric for metric in measured if metric is not None]
        if not metrics:
            raise ValueError(f"{limit.row}: {limit.metric} is in none of the results")
        values[limit.row, limit.metric] = statistics.median(metrics)
    return values


def main(
    results: Annotated[list[Path], typer.Argument(help="JSON files of the quick suite.")],
    limits: Annotated[Path, typer.Option(help="The file to rewrite.")] = BENCH / "limits.toml",
) -> None:
    """Rewrite the values and print those that change by more than their tolerance."""
    try:
        text = limits.read_text()
        known = read_limits(text)
        values = medians(known, [read_rows(path) for path in results])
        limits.write_text(renewed(text, values))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    for limit in known:
        value = values[limit.row, limit.metric]
        if abs(value / limit.value - 1) > limit.tolerance:
            print(f"{limit.row}: {limit.metric} was {limit.value:.4g} and is {value:.4g}: {limit.why}")


if __name__ == "__main__":
    typer.run(main)
