"""An image made over and over in processes of their own: what a server is held against, in turns with it."""

from dataclasses import dataclass
from types import ModuleType
from typing import Self

from bench.baselines import bare_loop, codec_floor, pipeline_loop
from bench.baselines.interface import all_cores
from bench.measuring.process_group import ProcessGroup
from bench.suites.cases import Case

BARE = bare_loop
"""Baseline (a)."""
PIPELINE = pipeline_loop
"""The server's own pipeline without a server around it."""
FLOOR = codec_floor
"""Baseline (d)."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What some rounds took of all processes together: seconds of CPU, and by the clock, as if those that had
    ended had gone on until all was done.
    """

    cpu: float
    wall: float


class CaseLoop:
    """``processes`` with one thread of libvips each, which can make the result of a ``Case``.

    They are started with the ``with``, and ``prepare`` comes before ``run``.
    """

    def __init__(self, work: ModuleType, processes: int = 1) -> None:
        self.processes = processes
        self.result = b""
        """What it makes, since it was prepared."""
        self._work = work
        self._crew = ProcessGroup(processes, all_cores(), VIPS_CONCURRENCY="1")
        self._prepared: Case | None = None

    @property
    def pids(self) -> list[int]:
        """Those of its processes."""
        return self._crew.pids

    def prepare(self, case: Case) -> None:
        """Load the image and make its result once. Raises ``RuntimeError`` where libvips cannot."""
        if case != self._prepared:
            self.result = self._crew.prepare(
                self._work.__name__, image=str(case.path), width=case.width, height=case.height
            )
            self._prepared = case

    def run(self, rounds: int) -> Turn:
        """``rounds`` in each of the processes, at the same time."""
        shift = self._crew.work(count=rounds)
        return Turn(shift.cpu_seconds, shift.done / shift.speed)

    def __enter__(self) -> Self:
        self._crew.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._crew.__exit__(None, None, None)
