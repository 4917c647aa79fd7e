"""A value that was given for a setting, and where it came from."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any


class Source(StrEnum):
    """The kinds of places that give values, the strongest first."""

    FLAG = "flag"
    VARIABLE = "variable"
    SECRET = "secret"  # noqa: S105 - the file that a VIPSRV_..._FILE variable names
    FILE = "file"
    LIMIT = "limit"  # of a cgroup, in place of the default
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from; ``place`` is the flag, the variable, or the file and its line."""

    source: Source
    place: str

    def fault(self, name: str, reason: str) -> str:
        """Return the line that says what is wrong with the setting ``name`` here."""
        # A flag and a variable name the setting already.
        where = f"{self.place}: {name}" if self.source is Source.FILE else self.place
        return f"{where}: {reason}"


DEFAULT = Origin(Source.DEFAULT, "default")


@dataclass(frozen=True, slots=True)
class Given:
    """A value that is not checked yet, and its origin."""

    value: Any
    origin: Origin


def flag_of(name: str) -> str:
    """Return the flag of a setting."""
    return "--" + name.replace("_", "-")


def suggestion(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return the end of a line about an unknown ``word``: which known one, after ``prefix``, may be meant."""
    similar = get_close_matches(word, known, n=1, cutoff=0.7)
    return f"; did you mean {prefix}{similar[0]}?" if similar else ""
