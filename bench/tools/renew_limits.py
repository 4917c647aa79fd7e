"""Set the values of the limits anew, where what they hold was changed on purpose or a limit has become slack.

    python -m bench.tools.renew_limits result.json [result.json …] [--limits bench/limits.toml]

Each value becomes the median of the results, and what has changed by more than its tolerance is printed. The
tolerances and reasons stay as they are; a reason that is no longer true has to be written by hand.
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
    """The TOML ``text`` with these values, by row and figure; everything else in it stays.

    Raises ``ValueError`` where a limit does not stand in a line of its own, as the others do.
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
        raise ValueError(f"not found as a line of its own: {', '.join(' '.join(key) for key in left)}")
    return "\n".join(lines) + "\n"


def medians(limits: list[Limit], results: list[Rows]) -> dict[tuple[str, str], float]:
    """What was measured for the limits, by row and figure. Raises ``ValueError`` for one that never was."""
    values = {}
    for limit in limits:
        measured = [result.get(limit.row, {}).get(limit.figure) for result in results]
        figures = [figure for figure in measured if figure is not None]
        if not figures:
            raise ValueError(f"{limit.row}: {limit.figure} is in none of the results")
        values[limit.row, limit.figure] = statistics.median(figures)
    return values


def main(
    results: Annotated[list[Path], typer.Argument(help="What the quick suite wrote, of one run or several.")],
    limits: Annotated[Path, typer.Option(help="The limits, which are rewritten.")] = BENCH / "limits.toml",
) -> None:
    """Rewrite the values and print those that have changed by more than their tolerance."""
    try:
        text = limits.read_text()
        known = read_limits(text)
        values = medians(known, [read_rows(path) for path in results])
        limits.write_text(renewed(text, values))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    for limit in known:
        value = values[limit.row, limit.figure]
        if abs(value / limit.value - 1) > limit.tolerance:
            print(f"{limit.row}: {limit.figure} was {limit.value:.4g} and is {value:.4g}: {limit.why}")


if __name__ == "__main__":
    typer.run(main)
