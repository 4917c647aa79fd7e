"""The interface of all baselines."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from bench.measuring.process_group import ProcessGroup


@dataclass(frozen=True)
class Request:
    """An image file to resize to exactly ``width`` × ``height`` pixels.

    ``format`` of the result is ``jpeg``, ``webp`` or ``avif``, and a JPEG has 4:2:0 chroma subsampling.
    Everything else of the encoder, such as its effort, is as the server has it by default.
    """

    image: Path
    width: int
    height: int
    format: str = "jpeg"
    quality: int = 85


@dataclass(frozen=True)
class ClosedLoopRun:
    """The measurements of a baseline under a closed loop.

    ``requests`` were answered in ``wall_seconds``; ``requests_per_second`` is the rate while all loops were
    running. ``cpu_seconds`` is the user and system time of all the baseline's processes for these requests,
    ``client_cpu_seconds`` that of the clients (0 for a loop, which has none). ``latencies`` are the seconds
    of each request. ``wrong`` results were not what was asked for; ``problem`` says how one of them was not.
    ``result`` is that of the first request.
    """

    requests: int
    requests_per_second: float
    wall_seconds: float
    cpu_seconds: float
    client_cpu_seconds: float
    latencies: Sequence[float] = field(default=(), repr=False)
    wrong: int = 0
    problem: str | None = None
    result: bytes = field(default=b"", repr=False)

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds a request of the baseline."""
        return self.cpu_seconds * 1e3 / self.requests

    @property
    def client_cpu_ms(self) -> float:
        """CPU milliseconds a request of the clients."""
        return self.client_cpu_seconds * 1e3 / self.requests


class Baseline(Protocol):
    """Something that resizes images on given cores, and runs while its ``with`` lasts.

    It is constructed with the numbers of the cores; no process starts before the ``with``.
    """

    name: str
    """One word, for the tables."""
    what: str
    """A description of one line."""
    source: str
    """Where it gets the image: ``upload``, or ``file`` of its own disk, or ``memory``, for a loop."""
    makes_result: bool
    """Whether its output is the resized image; a floor does a part of the work and gives another image."""
    cores: Sequence[int]

    @property
    def port(self) -> int:
        """The port on 127.0.0.1 while the ``with`` lasts; 0 for a loop."""

    def __init__(self, cores: Sequence[int] | None = None) -> None: ...

    def missing(self) -> str | None:
        """Why it cannot be started here and how to change that; ``None`` if it can."""

    def version(self) -> str:
        """The versions of its software. To be called only if it is not missing."""

    def serves(self, request: Request) -> bool:
        """Whether it reads this kind of image, by the file's name, and makes what is asked for."""

    def ask(self, request: Request) -> bytes:
        """Make one request and return the result. Raises what the client raises, or ``RuntimeError``."""

    def load(
        self,
        request: Request,
        clients: ProcessGroup,
        *,
        seconds: float | None = None,
        count: int | None = None,
    ) -> ClosedLoopRun:
        """Repeat a request by each client, for some seconds or ``count`` times each.

        A loop does not use the clients and runs in one process a core instead. Raises ``RuntimeError`` if a
        client or a loop fails.
        """

    def cpu_seconds(self) -> float:
        """User and system time of all its processes so far."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def all_cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0))
