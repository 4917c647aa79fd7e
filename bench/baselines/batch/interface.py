"""The interface of the programs of ``bench.tools.batch_compare``: each resizes many files in one run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Task:
    """Image files to reduce to JPEGs ``width`` pixels wide, as high as is proportional, with 4:2:0 chroma.

    ``files`` are those of one folder, in order of their names. ``listing`` is a text file with their paths,
    one a line. ``url`` is the address of the folder on a server of this machine, for a program that
    downloads.
    """

    files: Sequence[Path]
    listing: Path
    width: int
    url: str
    quality: int = 85

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        return self.files[0].parent


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command and what is added to the environment; an empty value removes a variable."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


class BatchProgram(Protocol):
    """A program, and the settings that it runs with."""

    name: str
    """One word, for the tables."""
    what: str
    """A description of one line: the settings."""
    downloads: bool
    """Whether it gets the images from the server at ``Task.url``, and not from their folder."""

    def missing(self) -> str | None:
        """Why it cannot be run here and how to change that; ``None`` if it can."""

    def version(self) -> str:
        """The versions of its software. To be called only if it is not missing."""

    def invocation(self, task: Task, output: Path, cores: int) -> Invocation:
        """How to do the task with so many cores.

        The results are the files that end with ``.jpg`` in ``output``, an empty folder, and its subfolders;
        their paths have the order of the task's files.
        """
