"""Reads settings from a TOML file, each with its line.

The keys are the names of the settings, without a table. ``tomllib`` does not tell where a key stands, and
lines are worth having in messages, so the lines are found afterwards.
"""

import os
import re
import stat
import tomllib
from collections.abc import Iterable
from pathlib import Path

from vipsrv.errors import SettingsError
from vipsrv.server.configuration.origin import Given, Origin, Source, suggestion
from vipsrv.server.configuration.types import type_fault
from vipsrv.server.settings import ServerSettings
from vipsrv.server.small_file import read_small_file

LOCAL_FILE = Path("vipsrv.toml")
"""In the current folder; read if no file is named and it exists."""

SYSTEM_FILE = Path("/etc/vipsrv.toml")
"""Read if no file is named and there is no ``LOCAL_FILE``."""

MOST_BYTES = 256 * 1024
"""A larger file is not one of settings."""

_DEFINITION = re.compile(r"""\s*(?:\[+\s*)?(?:([A-Za-z0-9_-]+)|"([^"\\]*)"|'([^']*)')\s*[=.\]]""")
"""The begin of a line that may define a key or a table."""

_MOST_CANDIDATES = 100
"""Lines that look like the definition of a key and are tried; a text of several lines may have thousands."""

_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def default_file() -> Path | None:
    """Return the file to read if none is named. Raises ``SettingsError`` if that cannot be trusted.

    A server may be started in a folder to which others can write, such as /tmp. Settings name files that it
    writes, so a file of someone else there must not be used just because it has the right name.
    """
    try:
        status = LOCAL_FILE.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return SYSTEM_FILE if os.path.lexists(SYSTEM_FILE) else None
    except OSError as error:
        raise SettingsError(f"{LOCAL_FILE}: the file cannot be read: {error.strerror}; {_CHOOSE}") from None
    if status.st_uid not in (0, os.geteuid()):
        raise SettingsError(
            f"{LOCAL_FILE}: the file belongs to another user (number {status.st_uid}); {_CHOOSE}"
        )
    if status.st_mode & stat.S_IWOTH and not stat.S_ISLNK(status.st_mode):
        raise SettingsError(f"{LOCAL_FILE}: every user of this machine may change the file; {_CHOOSE}")
    return LOCAL_FILE


_CHOOSE = "name it with --config if it is to be read, or read none with --no-config"


def read_toml(path: Path) -> tuple[dict[str, Given], list[str]]:
    """Return the settings of a file by name, and its faults, one line each.

    Raises ``SettingsError`` if nothing of it can be used.
    """
    text = read_text(path, MOST_BYTES)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(_syntax_fault(path, text, str(error))) from None
    except (RecursionError, ValueError) as error:  # thousands of brackets, or of digits
        raise SettingsError(f"{path}: this is not a file of settings: {error}") from None
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
        data, _ = read_small_file(path, most)
    except OSError as error:
        raise SettingsError(f"{path}: the file cannot be read: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig")  # some editors of Windows begin a file with a byte order mark
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path}:{line}: this is not text in UTF-8") from None


def lines_of(text: str, keys: Iterable[str]) -> dict[str, int]:
    """Return the line on which each key of the top level is defined, counted from 1.

    A line that looks like a definition may also be inside a text of several lines. It is one if what comes
    before it is complete.
    """
    lines = _lines(text)
    candidates: dict[str, list[int]] = {}
    for number, line in enumerate(lines, start=1):
        if match := _DEFINITION.match(line):
            key = next(group for group in match.groups() if group is not None)
            candidates.setdefault(key, []).append(number)
    found: dict[str, int] = {}
    for key in keys:
        numbers = candidates.get(key, [1])  # none if it is written with an escape
        if len(numbers) > 1:
            tried = numbers[:_MOST_CANDIDATES]
            found[key] = next((one for one in tried if _is_complete("\n".join(lines[: one - 1]))), numbers[0])
        else:
            found[key] = numbers[0]
    return found


def _lines(text: str) -> list[str]:
    # Not `splitlines`, which also splits where no line of TOML ends, such as at a form feed.
    return text.split("\n")


def _is_complete(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _syntax_fault(path: Path, text: str, message: str) -> str:
    place = _PLACE.search(message)
    line = place[1] if place and place[1] else len(_lines(text.rstrip("\n")))
    return f"{path}:{line}: this is not valid TOML: {_PLACE.sub('', message)}"


def _unknown(key: str, value: object) -> str | None:
    if not key:
        return "a key without a name"
    if key in ServerSettings.model_fields:
        return None
    if isinstance(value, dict):
        return "there are no tables: the keys are the names of settings, before any [table]"
    return f"there is no such setting{suggestion(key.replace('-', '_'), ServerSettings.model_fields)}"
