"""The images that the arguments of ``vipsrv-client`` name: files, folders, patterns and standard input.

They are listed while the work goes on, in bounded memory: no list of all images is held.
"""

import errno
import glob
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vipsrv.cli.upload import STANDARD_INPUT
from vipsrv.client.image_endings import IMAGE_ENDINGS

_Item = TypeVar("_Item")

SORTED_AT_ONCE = 10_000
"""Entries of a folder that are sorted together: the names that are held."""


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image to resize. ``folder`` is where it is within its argument, with a ``/`` at the end, or empty.

    ``listed`` states whether it was found in a folder, and not named.
    """

    path: Path
    folder: str = ""
    listed: bool = False


@dataclass(frozen=True, slots=True)
class PathProblem:
    """Something that was named or found and cannot be listed."""

    path: Path
    error: OSError


class ImagePaths:
    """The images of some arguments; iterate over them as often as needed.

    ``is_result`` tells whether a file is a result of an earlier run, which is left out. The folder
    ``skipped`` is not entered, unless it is an argument itself.
    """

    def __init__(
        self,
        arguments: Iterable[Path],
        *,
        recursive: bool,
        is_result: Callable[[Path], bool] = lambda _: False,
        skipped: Path | None = None,
    ) -> None:
        self._arguments = tuple(arguments)
        self._recursive = recursive
        self._is_result = is_result
        self._skipped = skipped
        self.left_out = 0
        """Results of earlier runs that the last iteration has met."""

    def __iter__(self) -> Iterator[FoundImage | PathProblem]:
        self.left_out = 0
        for argument in self._arguments:
            if argument == STANDARD_INPUT:
                yield FoundImage(argument)
            elif is_pattern(argument):
                yield from self._expand(str(argument))
            else:
                yield from self._named(argument, "")

    def _expand(self, pattern: str) -> Iterator[FoundImage | PathProblem]:
        base = _fixed_part(pattern)
        found = False
        for path in map(Path, _sorted(glob.iglob(pattern, recursive=True))):  # noqa: PTH207 - lists as it goes
            found = True
            folder = _folder_text(os.path.relpath(path.parent, base))
            if not path.is_dir():
                yield from self._named(path, folder)
            elif "**" not in pattern:  # otherwise its files match as well
                yield from self._named(path, folder + path.name + "/")
        if not found:
            text = "no file has a name like this"
            yield PathProblem(Path(pattern), FileNotFoundError(errno.ENOENT, text, pattern))

    def _named(self, path: Path, folder: str) -> Iterator[FoundImage | PathProblem]:
        """What a path stands for that was named, in a pattern or as it is."""
        if path.is_dir():
            yield from self._walk(path, folder)
        elif self._is_result(path):
            self.left_out += 1
        else:
            yield FoundImage(path, folder)

    def _walk(self, top: Path, folder: str) -> Iterator[FoundImage | PathProblem]:
        """The images of a folder, and then those of its folders. Links to folders are not followed."""
        waiting = [(top, folder)]
        while waiting:
            path, folder = waiting.pop()
            inner: list[str] = []
            try:
                with os.scandir(path) as entries:
                    shown = (entry for entry in entries if not entry.name.startswith("."))
                    for entry in _sorted(shown, key=_name):
                        if entry.is_dir(follow_symlinks=False):
                            inner.append(entry.name)
                        elif _ending(entry.name) in IMAGE_ENDINGS and _may_be_file(entry):
                            file = path / entry.name
                            if self._is_result(file):
                                self.left_out += 1
                            else:
                                yield FoundImage(file, folder, listed=True)
            except OSError as error:
                yield PathProblem(path, error)
            if self._recursive:
                inner.sort(reverse=True)
                waiting += [
                    (path / name, f"{folder}{name}/") for name in inner if not self._is_skipped(path / name)
                ]

    def _is_skipped(self, path: Path) -> bool:
        try:
            return self._skipped is not None and path.samefile(self._skipped)
        except OSError:
            return False


def is_pattern(argument: Path) -> bool:
    """Whether an argument is a pattern that the shell has not expanded, and not the name of a file."""
    return glob.has_magic(str(argument)) and not os.path.lexists(argument)


def _fixed_part(pattern: str) -> str:
    """The folder in which all matches of a pattern are."""
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    return os.path.join(*fixed) if fixed else os.curdir  # noqa: PTH118 - of parts that include the root


def _folder_text(relative: str) -> str:
    parts = [part for part in Path(relative).parts if part not in {os.curdir, os.pardir}]
    return "".join(f"{part}/" for part in parts)


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _name(entry: "os.DirEntry[str]") -> str:
    return entry.name


def _may_be_file(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a file, or a link to one; a link to nothing counts, so that its failure is told."""
    if entry.is_symlink():
        try:
            return not stat.S_ISDIR(entry.stat().st_mode)
        except OSError:
            return True
    return entry.is_file()


def _sorted(items: Iterable[_Item], key: Callable[[_Item], str] = str) -> Iterator[_Item]:
    """Sort as many at a time as memory may hold: small folders are in order."""
    items = iter(items)
    while chunk := list(itertools.islice(items, SORTED_AT_ONCE)):
        yield from sorted(chunk, key=key)
