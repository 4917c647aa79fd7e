"""The configuration of a worker: each limit with its default, unit, bounds and help text.

``server/settings.py`` makes a setting of each field: a field that is added here becomes an option of ``vipsrv
serve``, an environment variable and a member of the ``WorkerConfig`` that the pipeline gets. A worker imports
this module when it starts, so the module uses only the standard library.
"""

from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal, TypeVar

IN_MEMORY_SIZE = 8 * 1024 * 1024
"""Bytes: the largest image that is passed to a worker in memory. A larger image is passed in a file."""

BYTES = "bytes"
PIXELS = "pixels"

SandboxMode = Literal["require", "best-effort", "off"]
"""What happens if a layer of a worker's confinement does not hold; ``off`` confines nothing."""

_KEY = "vipsrv"
_MIB = 1024**2
_GIB = 1024**3

_MOST_ON_THE_WIRE = 2**63 - 1
"""The largest number that a client accepts in the reply to a HELLO."""

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Declaration:
    """The unit, help text and bounds of a setting; ``least`` and ``most`` are the extreme valid values.

    A running server can be given another value of a ``reloadable`` setting: its workers are replaced.
    """

    help: str
    unit: str | None = None
    least: int | None = None
    most: int | None = None
    reloadable: bool = True


def _declare(
    default: _Value,
    text: str,
    *,
    unit: str | None = None,
    least: int | None = None,
    most: int | None = None,
    reloadable: bool = True,
) -> _Value:
    return field(default=default, metadata={_KEY: Declaration(text, unit, least, most, reloadable)})


@dataclass(frozen=True, slots=True, kw_only=True)
class WatermarkFile:
    """An image that requests may lay over their results by its ``name``: ``size`` bytes, which are read from
    the ``descriptor`` when a worker starts.
    """

    name: str
    descriptor: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """The settings that apply to every job of a worker.

    ``watermarks`` has no declaration: the server opens the files that its own setting names.
    """

    max_upload: int = _declare(
        2 * _GIB, "Largest image that is accepted, in bytes.", unit=BYTES, least=1, most=_MOST_ON_THE_WIRE
    )
    quality: int = _declare(85, "Quality of a result if the request names none.", least=1, most=100)
    formats: tuple[str, ...] | None = _declare(
        None,
        "Formats to read, separated by commas, by the names that 'vipsrv formats' lists; "
        "by default all but those whose loader libvips marks as untrusted.",
        reloadable=False,  # only a worker knows which names there are
    )
    tolerate_truncated: bool = _declare(
        default=False, text="Resize truncated and corrupt images as far as they can be decoded."
    )
    max_pixels: int = _declare(
        2**30, "Largest image that is decoded, in pixels.", unit=PIXELS, least=1, most=_MOST_ON_THE_WIRE
    )
    max_output_pixels: int = _declare(
        100_000_000,
        "Maximum pixels of all results of one request together.",
        unit=PIXELS,
        least=1,
        most=_MOST_ON_THE_WIRE,
    )
    max_frames: int = _declare(
        2000, "Most frames of an animation that a result may have (the option 'pages').", least=1, most=10_000
    )
    max_effort: int = _declare(
        9,
        "Highest 'effort' that a request may ask of the encoder of an AVIF, WebP, PNG, GIF, JPEG "
        "or JPEG XL. A photo takes as AVIF some 40 times the CPU time at 4 that it takes at 0, and 100 times "
        "at 6.",
        least=0,
        most=9,
    )
    max_expansion: int = _declare(
        250,
        "Highest ratio of an image's decoded size to its file size; checked above 100 MB of decoded size.",
        least=1,
    )
    job_memory: int = _declare(_GIB, "Bytes of memory that one job may take.", unit=BYTES, least=_MIB)
    sandbox: SandboxMode | None = _declare(  # noqa: RUF009 - the default is a constant
        None,
        "Confinement of the workers: 'require' starts none that lacks a layer, 'best-effort' goes on with "
        "the layers that hold, 'off' confines nothing; by default 'require' where the kernel has Landlock "
        "and seccomp, and 'best-effort' elsewhere.",
        reloadable=False,
    )
    worker_uid: int = _declare(
        0,
        "Number of the user and group that workers change to if the server runs as root; 0 gives each worker "
        "one of its own.",
        least=0,
        most=2**32 - 2,
        reloadable=False,
    )
    watermarks: tuple[WatermarkFile, ...] = ()


def declarations() -> list[tuple[Field[Any], Declaration]]:
    """Return the fields of ``WorkerConfig`` that are settings, each with its declaration."""
    return [(one, one.metadata[_KEY]) for one in fields(WorkerConfig) if _KEY in one.metadata]
