"""Make a report: HTML pages that need no other file, and their charts as SVG.

    python -m bench.report DIRECTORY_OR_FILES --out DIRECTORY
    python -m bench.report compare.json --main bench/throughput.svg

Reads what bench.load and bench.tools.compare wrote with --json, and pytest-benchmark with --benchmark-json.
``index.html`` has everything but how cost grows (``bench/suites/test_growth.py``), which is ``growth.html``.
The same files give the same bytes.
"""

from pathlib import Path
from typing import Annotated

import typer

from bench.report import inputs, style, throughput
from bench.report.page import Section, page
from bench.report.sections import growth_sections, sections

_TITLE = "vipsrv: benchmarks"
_GROWTH = "vipsrv: how the cost of a request grows"


def main(
    paths: Annotated[list[Path], typer.Argument(exists=True, help="JSON files, or folders of them.")],
    *,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Write the pages and the charts to this folder.")
    ] = None,
    main_chart: Annotated[
        Path | None,
        typer.Option(
            "--main", dir_okay=False, help="Write the README's chart, of one comparison, to this file."
        ),
    ] = None,
) -> None:
    """Make a report."""
    if out is None and main_chart is None:
        raise typer.BadParameter("give --out DIRECTORY, --main FILE, or both")
    try:
        found = inputs.read(paths)
    except inputs.NotABenchmark as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    for sentence in found.skipped:
        typer.echo(sentence, err=True)
    if not found:
        typer.echo("none of these files is a result of a benchmark", err=True)
        raise typer.Exit(1)
    with style.drawn():
        if main_chart is not None:
            if len(found.comparisons) != 1:
                number = len(found.comparisons)
                raise typer.BadParameter(
                    f"--main takes the JSON of one bench.tools.compare, and these files have {number}"
                )
            figure = throughput.chart(found.comparisons[0][1], results_only=True)
            main_chart.write_bytes(style.svg(figure, "Throughput of vipsrv and of what it is compared with"))
            print(main_chart)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            pages = {
                "index.html": (_TITLE, sections(found)),
                "growth.html": (_GROWTH, growth_sections(found)),
            }
            for name, (title, made) in pages.items():
                if made:
                    _write(out, name, title, made)


def _write(out: Path, name: str, title: str, made: list[Section]) -> None:
    for section in made:
        for chart in section.charts:
            (out / chart.name).write_bytes(chart.svg)
            print(out / chart.name)
    (out / name).write_text(page(title, made), encoding="utf-8")
    print(out / name)


if __name__ == "__main__":
    typer.run(main)
