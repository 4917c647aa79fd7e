"""A commented TOML file and a JSON Schema, both made from the declarations of the settings."""

import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from vipsrv.server.configuration.types import bare_type, sample_of, schema_of, toml_of
from vipsrv.server.settings import ServerSettings
from vipsrv.version import __version__

_WIDTH = 100
"""Columns of the comments."""

_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "min_length": "minLength",
}
"""The names of bounds in the declaration of a setting, and their words in JSON Schema."""


def example_file() -> str:
    """Return a TOML file with all settings: the help text as comment, and the default commented out."""
    return "\n".join(_example_lines()) + "\n"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the TOML file, for editors that check it while it is written."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Settings of vipsrv serve",
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _property(field) for name, field in ServerSettings.model_fields.items()},
    }


def _example_lines() -> Iterator[str]:
    yield f"# Settings of vipsrv {__version__}. Remove the # before a key to change its value."
    yield "# A flag of 'vipsrv serve' and a variable VIPSRV_... win over this file."
    yield "# A running server takes over a changed value when it gets SIGHUP, except where a comment says"
    yield "# that it needs a restart. 'vipsrv config' shows what holds."
    reloadable = ServerSettings.reloadable()
    for name, field in ServerSettings.model_fields.items():
        text = field.description or ""
        if name not in reloadable:
            text += " Needs a restart."
        yield ""
        yield from textwrap.wrap(
            text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
        )
        default = _default_of(field)
        if default is None:
            yield "# There is no default; for example:"
            default = (field.examples or [sample_of(name, bare_type(field.annotation))])[0]
        yield f"#{name} = {toml_of(default)}"


def _property(field: FieldInfo) -> dict[str, Any]:
    """Return the schema of one setting. Its bounds are those of numbers, also where a text is allowed."""
    schema: dict[str, Any] = {"description": field.description, **schema_of(bare_type(field.annotation))}
    number = schema["anyOf"][0] if "anyOf" in schema else schema
    for declared in field.metadata:
        for name, word in _BOUNDS.items():
            if hasattr(declared, name):
                number[word] = getattr(declared, name)
    default = _default_of(field)
    if default is not None and field.default_factory is None:  # a computed one is of this machine
        schema["default"] = list(default) if isinstance(default, tuple) else default
    return schema


def _default_of(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})
