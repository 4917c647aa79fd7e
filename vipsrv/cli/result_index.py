"""What a run over many images has met: its images and their results; and which results exist already."""

import bisect
import os
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from vipsrv.cli.result_names import NamePattern


class ResultIndex:
    """The images and results of one run, in a temporary database that grows on the disk and not in memory."""

    def __init__(self) -> None:
        # An empty name: SQLite makes a file that nobody else sees, once it does not fit into its cache.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        for table in ("images", "results"):
            self._database.execute(f"CREATE TABLE {table} (path BLOB PRIMARY KEY) WITHOUT ROWID")

    def take_image(self, path: Path) -> bool:
        """Note an image; ``False`` if it was met before, or is a result that this run has saved."""
        key = _key(path)
        return not self._has("results", key) and self._add("images", key)

    def take_results(self, paths: Sequence[Path], image: Path) -> None:
        """Note the files of the results of an image. Raises ``ValueError`` if one is taken."""
        for path in paths:
            key = _key(path)
            if key != _key(image) and self._has("images", key):
                raise ValueError(f"its result would replace {path}, which is an image of this call")
            if not self._add("results", key):
                raise ValueError(f"another image of this call has the result {path}; change --name")

    def close(self) -> None:
        """Remove the database."""
        self._database.close()

    def _add(self, table: str, key: bytes) -> bool:
        return self._database.execute(f"INSERT OR IGNORE INTO {table} VALUES (?)", [key]).rowcount == 1  # noqa: S608 - names of this file

    def _has(self, table: str, key: bytes) -> bool:
        found = self._database.execute(f"SELECT 1 FROM {table} WHERE path = ?", [key])  # noqa: S608 - as above
        return found.fetchone() is not None


class ExistingResults:
    """Finds out whether the results of an image exist.

    A name that is known is looked up. Otherwise the names of its folder are listed once, and kept until
    another folder is asked for. Several threads may ask.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the fields below
        self._folder: Path | None = None
        self._names: list[str] = []

    def exist(self, patterns: Sequence[NamePattern]) -> bool:
        """Whether each of the results is there."""
        found: set[Path] = set()
        with self._lock:
            for pattern in patterns:
                matches = (pattern.folder / name for name in self._matches(pattern))
                match = next((path for path in matches if path not in found), None)
                if match is None:
                    return False
                found.add(match)
        return True

    def _matches(self, pattern: NamePattern) -> list[str]:
        if pattern.is_exact:
            return [pattern.name] if (pattern.folder / pattern.name).exists() else []
        if pattern.folder != self._folder:
            self._folder, self._names = pattern.folder, _names(pattern.folder)
        first = bisect.bisect_left(self._names, pattern.start)
        matches = []
        for index in range(first, len(self._names)):
            name = self._names[index]
            if not name.startswith(pattern.start):
                break
            if pattern.expression.fullmatch(name):
                matches.append(name)
        return matches


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names, not paths
    except FileNotFoundError:
        return []


def _key(path: Path) -> bytes:
    return os.fsencode(os.path.abspath(path))  # noqa: PTH100 - links are not followed
