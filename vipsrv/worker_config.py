"""What a worker is told when it starts: each limit once, with its default, unit, bounds and help text.

The server's settings take these fields over (``server/settings.py``): a field that is added here becomes an
option of ``vipsrv serve``, an environment variable and a member of the ``WorkerConfig`` that the pipeline
gets. A worker imports this module at its start, so it needs nothing but the standard library.
"""

from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

IN_MEMORY_SIZE = 8 * 1024 * 1024
"""Bytes: the largest image that reaches a worker through memory. A larger one goes through a file."""

BYTES = "bytes"
PIXELS = "pixels"

_KEY = "vipsrv"
_MIB = 1024**2
_GIB = 1024**3

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Declaration:
    """What is declared about a field beside its type and default; ``least`` and ``most`` are allowed."""

    help: str
    unit: str | None = None
    least: int | None = None
    most: int | None = None


def _declare(
    default: _Value, text: str, *, unit: str | None = None, least: int | None = None, most: int | None = None
) -> _Value:
    return field(default=default, metadata={_KEY: Declaration(text, unit, least, most)})


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """Limits and choices that hold for every job of a worker."""

    quality: int = _declare(85, "JPEG quality where none is asked for.", least=1, most=100)
    formats: tuple[str, ...] | None = _declare(
        None,
        "Formats to read, with commas between them, as 'vipsrv formats' names them; "
        "by default all that libvips does not mark as untrusted.",
    )
    tolerate_truncated: bool = _declare(
        default=False, text="Answer truncated and corrupt images with what can be saved of them."
    )
    max_pixels: int = _declare(2**30, "Largest image that is decoded, in pixels.", unit=PIXELS, least=1)
    max_output_pixels: int = _declare(
        100_000_000, "Most pixels of all results of a request together.", unit=PIXELS, least=1
    )
    max_expansion: int = _declare(
        250, "How many times its size an image may decode to, where that is over 100 MB.", least=1
    )
    job_memory: int = _declare(
        _GIB, "Bytes of memory that the work on one image may take.", unit=BYTES, least=_MIB
    )


def declarations() -> list[tuple[Field[Any], Declaration]]:
    """All fields of ``WorkerConfig``, each with what is declared about it."""
    return [(one, one.metadata[_KEY]) for one in fields(WorkerConfig)]
