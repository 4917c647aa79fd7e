"""What a worker is told when it starts: each limit once, with its default, unit and bounds."""

from dataclasses import dataclass

IN_MEMORY_SIZE = 8 * 1024 * 1024
"""Bytes: the largest image that reaches a worker through memory. A larger one goes through a file."""

_GIB = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """Limits and choices that hold for every job of a worker.

    ``max_pixels`` and ``max_output_pixels`` are pixels of the source and of all results together,
    ``job_memory`` is bytes, ``max_expansion`` the ratio of decoded to encoded bytes, ``quality`` (1-100) the
    default of a lossy result, ``formats`` the formats to read (``None``: all that libvips trusts),
    and ``tolerate_truncated`` accepts truncated and corrupt images as far as they can be decoded.
    """

    max_pixels: int = 2**30
    max_output_pixels: int = 100_000_000
    job_memory: int = _GIB
    max_expansion: int = 250
    quality: int = 85
    formats: tuple[str, ...] | None = None
    tolerate_truncated: bool = False
