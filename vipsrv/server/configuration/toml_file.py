"""Reads settings from a TOML file, each with its line.

The keys are the names of the settings, without a table. ``tomllib`` does not tell where a key stands, and
lines are worth having in messages, so the lines are found afterwards.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vipsrv.errors import SettingsError
from vipsrv.server.configuration.origin import Given, Origin, Source, suggestion
from vipsrv.server.configuration.types import type_fault
from vipsrv.server.settings import ServerSettings

DEFAULT_FILES = (Path("vipsrv.toml"), Path("/etc/vipsrv.toml"))
"""The first that exists is read if no file is named."""

MOST_BYTES = 1024 * 1024
"""A larger file is not one of settings."""

_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def default_file() -> Path | None:
    """Return the file to read if none is named."""
    return next((path for path in DEFAULT_FILES if path.exists()), None)


def read_toml(path: Path) -> tuple[dict[str, Given], list[str]]:
    """Return the settings of a file by name, and its faults, one line each.

    Raises ``SettingsError`` if nothing of it can be used.
    """
    text = read_text(path, MOST_BYTES)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(_syntax_fault(path, text, str(error))) from None
    values: dict[str, Given] = {}
    faults: list[str] = []
    for key, line in lines_of(text, document).items():
        value, origin = document[key], Origin(Source.FILE, f"{path}:{line}")
        fault = _unknown(key, value) or type_fault(ServerSettings.model_fields[key], value)
        if fault:
            faults.append(origin.fault(key, fault))
        else:
            values[key] = Given(value, origin)
    return values, faults


def read_text(path: Path, most: int) -> str:
    """Return the text of a file of at most ``most`` bytes. Raises ``SettingsError``."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise SettingsError(f"{path}: the file cannot be read: {error.strerror}") from None
    if len(data) > most:
        raise SettingsError(f"{path}: the file is larger than {most} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path}:{line}: this is not text in UTF-8") from None


def lines_of(text: str, document: Mapping[str, Any]) -> dict[str, int]:
    """Return the line on which each key of the top level is defined, counted from 1.

    A line that looks like a definition may also be inside a text of several lines. It is one if what comes
    before it is complete.
    """
    lines = text.splitlines(keepends=True)
    found: dict[str, int] = {}
    for key in document:
        name = re.escape(key)
        looks_like_it = re.compile(rf"""\s*(\[+\s*)?(?:{name}|"{name}"|'{name}')\s*[=.\]]""")
        numbers = [number for number, line in enumerate(lines, start=1) if looks_like_it.match(line)]
        if len(numbers) > 1:
            numbers = [number for number in numbers if _is_complete("".join(lines[: number - 1]))]
        found[key] = numbers[0] if numbers else 1  # none if it is written with an escape
    return found


def _is_complete(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _syntax_fault(path: Path, text: str, message: str) -> str:
    place = _PLACE.search(message)
    line = place[1] if place and place[1] else max(1, len(text.splitlines()))
    return f"{path}:{line}: this is not valid TOML: {_PLACE.sub('', message)}"


def _unknown(key: str, value: object) -> str | None:
    if key in ServerSettings.model_fields:
        return None
    if isinstance(value, dict):
        return "there are no tables: the keys are the names of settings, before any [table]"
    return f"there is no such setting{suggestion(key.replace('-', '_'), ServerSettings.model_fields)}"
