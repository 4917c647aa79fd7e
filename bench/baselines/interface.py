"""The interface of all baselines."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from bench.measuring.process_group import ProcessGroup


@dataclass(frozen=True)
class Request:
    """An image file to resize to a JPEG of quality 85 of exactly ``width`` × ``height`` pixels."""

    image: Path
    width: int
    height: int


@dataclass(frozen=True)
class ClosedLoopRun:
    """The measurements of a baseline under a closed loop.

    ``requests`` were answered in ``wall_seconds``; ``requests_per_second`` is the rate while all loops were
    running. ``cpu_seconds`` is the user and system time of all the baseline's processes for these requests,
    ``client_cpu_seconds`` that of the clients (0 for a loop, which has none).
    """

    requests: int
    requests_per_second: float
    wall_seconds: float
    cpu_seconds: float
    client_cpu_seconds: float

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

    def reads(self, image: Path) -> bool:
        """Whether it can read this kind of image, by the file's name."""

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
