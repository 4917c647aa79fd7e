"""What compare, the suites and the report know of a baseline, whatever it is made of."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from bench.measuring.process_group import ProcessGroup


@dataclass(frozen=True)
class Request:
    """A file to be made a JPEG of quality 85 of exactly ``width`` × ``height`` pixels."""

    image: Path
    width: int
    height: int


@dataclass(frozen=True)
class ClosedLoopRun:
    """What a baseline did under a closed loop.

    ``requests`` were answered in ``wall_seconds``, of which ``requests_per_second`` is the rate while all
    loops were running. ``cpu_seconds`` is the user and system time of all processes of the baseline over all
    of these requests, ``client_cpu_seconds`` that of the processes that asked (0 where nobody has to ask).
    """

    requests: int
    requests_per_second: float
    wall_seconds: float
    cpu_seconds: float
    client_cpu_seconds: float

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds a request."""
        return self.cpu_seconds * 1e3 / self.requests

    @property
    def client_cpu_ms(self) -> float:
        """The same of who asked."""
        return self.client_cpu_seconds * 1e3 / self.requests


class Baseline(Protocol):
    """Something that resizes images, confined to some cores while its ``with`` lasts.

    It is made with the numbers of these cores. Nothing is started before the ``with``.
    """

    name: str
    """One word, as in the tables."""
    what: str
    """What it is, in a line."""
    makes_result: bool
    """Whether what it gives is the image resized, and not just as much work."""
    cores: Sequence[int]

    @property
    def port(self) -> int:
        """Of 127.0.0.1 while the ``with`` lasts; 0 where there is none, as with a loop."""

    def __init__(self, cores: Sequence[int] | None = None) -> None: ...

    def missing(self) -> str | None:
        """Why it cannot be started here and how to change that; ``None`` where it can."""

    def version(self) -> str:
        """The software that it consists of, with versions. Only where it is not missing."""

    def reads(self, image: Path) -> bool:
        """Whether it reads images of that kind, by the file's name."""

    def ask(self, request: Request) -> bytes:
        """The result of one request. Raises what its client raises, ``RuntimeError`` for a loop."""

    def load(
        self,
        request: Request,
        clients: ProcessGroup,
        *,
        seconds: float | None = None,
        count: int | None = None,
    ) -> ClosedLoopRun:
        """The same request over and over by each client, for so many seconds or so often each.

        A loop has no use for the clients and runs in one process a core instead.
        Raises ``RuntimeError`` where a client or a loop fails.
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
