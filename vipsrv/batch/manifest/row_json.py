"""A row as JSON: a line of a journal, or of a list of failures. The names are those of the columns."""

import json
from collections.abc import Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any

from vipsrv.batch.rows import OutputRow, Row

_TYPES: Mapping[object, tuple[type, ...]] = {str: (str,), int: (int,), float: (float, int)}
_ROW = {one.name: _TYPES[one.type] for one in fields(Row) if one.name != "outputs"}
_OUTPUT = {one.name: _TYPES[one.type] for one in fields(OutputRow)}

_row_values = attrgetter(*_ROW)
_output_values = attrgetter(*_OUTPUT)
_ENCODER = json.JSONEncoder(separators=(",", ":"))
"""Made once: ``json.dumps`` makes one for each call that has separators."""


def row_line(row: Row) -> bytes:
    """Return a row as one line, with its end. Text that is not ASCII is escaped."""
    values = dict(zip(_ROW, _row_values(row), strict=True))
    values["outputs"] = [dict(zip(_OUTPUT, _output_values(one), strict=True)) for one in row.outputs]
    return _ENCODER.encode(values).encode() + b"\n"


def row_of_line(line: bytes) -> Row:
    """Return the row that a line holds. Raises ``ValueError`` that says what is wrong with it."""
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - one error for every fault of a line
    outputs = values.get("outputs")
    if not isinstance(outputs, list):
        raise ValueError("it has no list 'outputs'")  # noqa: TRY004 - as above
    return Row(
        **_checked(values, _ROW),
        outputs=tuple(OutputRow(**_checked(one, _OUTPUT)) for one in outputs),
    )


def _checked(values: Any, types: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError("a result is no object")  # noqa: TRY004 - as above
    for name, allowed in types.items():
        if type(values.get(name)) not in allowed:
            raise ValueError(f"{name!r} is missing or of another type")
    return {name: values[name] for name in types}
