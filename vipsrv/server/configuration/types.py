"""The types that a setting may have in a TOML file, and their JSON Schema.

A flag and a variable are text, which the settings model reads. In a file a value has a type of its own, and
one that does not fit, such as ``workers = true``, is a mistake.
"""

import json
from datetime import date, time
from enum import EnumType
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ByteSize
from pydantic.fields import FieldInfo

_UNITS = (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024), ("GB", 1000**3), ("MB", 1000**2))

SECRET_TEXT = "(secret)"  # noqa: S105 - what is shown in place of one

SIZE_PATTERN = r"^\s*\d+(\.\d+)?\s*([kKmMgGtTpPeE]?[bB]?|[kKmMgGtTpPeE][iI][bB])$"
"""A size as text, as ``pydantic.ByteSize`` reads it."""


def bare_type(annotation: Any) -> Any:
    """Return the type of a setting without ``None`` and what is ``Annotated``."""
    if get_origin(annotation) is Annotated:
        return bare_type(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        members = [member for member in get_args(annotation) if member is not NoneType]
        return bare_type(members[0]) if len(members) == 1 else annotation
    return annotation


def type_fault(field: FieldInfo, value: object) -> str | None:
    """Return what is wrong with the type of a value of a file, or ``None``. Bounds are not checked."""
    kind = bare_type(field.annotation)
    wanted = ""
    if kind is bool:
        wanted = "" if isinstance(value, bool) else "true or false"
    elif kind is ByteSize:
        wanted = "" if _is_number(value, int) or isinstance(value, str) else 'bytes, or a text like "200MB"'
    elif kind is int:
        wanted = "" if _is_number(value, int) else "a whole number"
    elif kind is float:
        wanted = "" if _is_number(value, int, float) else "a number"
    elif get_origin(kind) is tuple:
        texts = value if isinstance(value, list) else [value]
        wanted = "" if all(isinstance(text, str) for text in texts) else "a list of texts"
    elif not isinstance(value, str):
        wanted = "a text"
    if not wanted and "\0" in str(value):
        return "must have no character with the number 0"  # no path, name or address may
    return f"must be {wanted}, not {_shown(value)}" if wanted else None


def schema_of(kind: Any) -> dict[str, Any]:
    """Return the JSON Schema of a type, without bounds."""
    if choices := choices_of(kind):
        return {"enum": choices}
    if get_origin(kind) is tuple:
        return {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}
    if kind is ByteSize:
        return {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": SIZE_PATTERN}]}
    return {"type": {bool: "boolean", int: "integer", float: "number"}.get(kind, "string")}


def toml_of(value: object) -> str:
    """Return a value of a setting as it is written in a TOML file. ``None`` cannot be written."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, ByteSize):
        return _size(int(value))
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(toml_of, value)) + "]"
    # A text of JSON is one of TOML, except for the escapes of what is beyond 16 bits.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def shown(value: object) -> str:
    """Return a value for a person to read: as ``toml_of``, and a word if there is none."""
    return "none" if value is None else toml_of(value)


def choices_of(kind: Any) -> list[str]:
    """Return the words of which a setting is one; none if it may be any text."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return list(map(str, kind)) if isinstance(kind, EnumType) else []


def sample_of(name: str, kind: Any) -> object:
    """Return a value that shows how a setting without a default is written."""
    if choices := choices_of(kind):
        return choices[0]
    if get_origin(kind) is tuple:
        return ["one", "another"]
    if kind is Path:
        return f"/path/to/{name}"
    return {bool: True, int: 1, float: 1.0, ByteSize: 1}.get(kind, name)


def _size(size: int) -> str:
    """Return a size in the largest unit of which it is a whole number."""
    for unit, factor in _UNITS:
        if size and size % factor == 0:
            return f'"{size // factor}{unit}"'
    return str(size)


def _is_number(value: object, *kinds: type) -> bool:
    # True and False are instances of int.
    return isinstance(value, kinds) and not isinstance(value, bool)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict) for one in value)):
        return "a table"
    return str(value) if isinstance(value, date | time) else repr(value)[:80]
