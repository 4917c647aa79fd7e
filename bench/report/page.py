"""The report as one HTML page that needs no other file and no network."""

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; }
img { max-width: 100%; background: #fff; border-radius: 6px; border: 1px solid #8884; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.875rem; }
th, td { padding: 0.2rem 0.7rem 0.2rem 0; border-bottom: 1px solid #8884; text-align: left; }
td.number, th.number { text-align: right; }
tr.own { font-weight: bold; }
.wide { overflow-x: auto; }
.note { opacity: 0.75; font-size: 0.875rem; }
"""

Cell = str | float | int | None


@dataclass(frozen=True, slots=True)
class Chart:
    """An SVG, and the name of its file."""

    name: str
    title: str
    svg: bytes


@dataclass(frozen=True, slots=True)
class Table:
    """Cells by row; ``own`` are the numbers of the rows to be highlighted."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    own: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with charts, tables and notes, in that order."""

    title: str
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()


def page(title: str, sections: Iterable[Section]) -> str:
    """The whole page."""
    body = "\n".join(map(_section, sections))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    for chart in section.charts:
        data = base64.b64encode(chart.svg).decode("ascii")
        source = f"data:image/svg+xml;base64,{data}"
        parts.append(f'<p><img src="{source}" alt="{html.escape(chart.title)}"></p>')
    parts += map(_table, section.tables)
    parts += [f'<p class="note">{html.escape(note)}</p>' for note in section.notes]
    return "\n".join(parts)


def _table(table: Table) -> str:
    numbers = [
        all(not isinstance(row[column], str) for row in table.rows) for column in range(len(table.head))
    ]
    heads = zip(table.head, numbers, strict=True)
    head = "".join(f"<th{_kind(number)}>{html.escape(text)}</th>" for text, number in heads)
    rows = []
    for place, row in enumerate(table.rows):
        own = ' class="own"' if place in table.own else ""
        cells = "".join(
            f"<td{_kind(number)}>{html.escape(_text(cell))}</td>"
            for cell, number in zip(row, numbers, strict=True)
        )
        rows.append(f"<tr{own}>{cells}</tr>")
    lines = "\n".join(rows)
    whole = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table>"
    return f'<div class="wide">{whole}</div>'


def _kind(number: bool) -> str:  # noqa: FBT001 - of one argument
    return ' class="number"' if number else ""


def _text(cell: Cell) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"
    return str(cell)
