"""The contents of the report's page, and the page itself, which ``page.html.jinja`` lays out."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import jinja2

from bench import BENCH

_TEMPLATES = BENCH / "report"

Cell = str | float | int | None


@dataclass(frozen=True, slots=True)
class Chart:
    """An SVG, the name of its file and its title."""

    name: str
    title: str
    svg: bytes

    @property
    def data_uri(self) -> str:
        """The SVG as an address, so that the page needs no other file."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg).decode('ascii')}"


@dataclass(frozen=True, slots=True)
class Column:
    """The title of a table's column, and whether all of its cells are numbers."""

    title: str
    is_number: bool


@dataclass(frozen=True, slots=True)
class Table:
    """Cells by row; ``own`` are the indices of the rows to be highlighted."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    own: frozenset[int] = frozenset()

    @property
    def columns(self) -> list[Column]:
        """The columns of the table."""
        return [
            Column(title, all(not isinstance(row[index], str) for row in self.rows))
            for index, title in enumerate(self.head)
        ]


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with charts, tables and notes, in that order."""

    title: str
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()


def page(title: str, sections: Iterable[Section]) -> str:
    """The HTML of the whole page."""
    template = _environment().get_template("page.html.jinja")
    return template.render(title=title, sections=list(sections)) + "\n"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = _cell_text
    return environment


def _cell_text(cell: Cell) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"
    return str(cell)
