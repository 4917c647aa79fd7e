"""``vipsrv config``: print the effective settings and where each comes from, an example file, or a schema."""

import json
from typing import Any

import typer

from vipsrv.printable import printable
from vipsrv.server import Configuration, ServerSettings
from vipsrv.server.configuration.documents import example_file, json_schema


def print_configuration(configuration: Configuration, *, as_json: bool) -> None:
    """Print each setting with its value and its origin. The value of a secret is not printed."""
    if as_json:
        typer.echo(json.dumps(_as_json(configuration), indent=2))
        return
    typer.echo(f"file: {printable(str(configuration.file)) if configuration.file else 'none'}")
    rows = [
        (name, configuration.shown(name), configuration.origins[name].place)
        for name in ServerSettings.model_fields
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, place in rows:
        typer.echo(printable(f"{name:{widths[0]}}  {value:{widths[1]}}  {place}"))


def print_example() -> None:
    """Print a commented TOML file with all settings."""
    typer.echo(example_file(), nl=False)


def print_schema() -> None:
    """Print the JSON Schema of the TOML file."""
    typer.echo(json.dumps(json_schema(), indent=2))


def _as_json(configuration: Configuration) -> dict[str, Any]:
    reloadable = ServerSettings.reloadable()
    return {
        "file": str(configuration.file) if configuration.file else None,
        "settings": {
            name: {
                "value": None
                if configuration.is_secret(name)
                else _json_value(getattr(configuration.settings, name)),
                "secret": configuration.is_secret(name),
                "source": origin.source,
                "place": origin.place,
                "reloadable": name in reloadable,
            }
            for name, origin in configuration.origins.items()
        },
    }


def _json_value(value: object) -> object:
    if isinstance(value, tuple):
        return list(map(_json_value, value))
    return value if isinstance(value, bool | int | float) or value is None else str(value)
