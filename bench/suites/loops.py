"""Loops that make the result of a case again and again, in turns with the server that is measured."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Self

from bench.baselines import bare_loop, codec_floor, pipeline_loop, turbojpeg_floor
from bench.baselines.interface import all_cores
from bench.measuring.process_group import ProcessGroup, worker_settings
from bench.suites.cases import Case
from vipsrv.server.cpus import available_cpus

WORKERS = available_cpus()
"""How many workers the server has by default."""

BARE = bare_loop
"""``thumbnail_buffer`` and ``jpegsave_buffer``."""
PIPELINE = pipeline_loop
"""The server's pipeline without the server."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The time of some rounds in all processes: CPU seconds, and seconds by the clock.

    The latter is calculated as if processes that ended early had continued until all work was done.
    """

    cpu: float
    wall: float


def floor_of(case: Case) -> ModuleType:
    """The work of the codecs alone: libjpeg-turbo's for a JPEG, libvips' for all others."""
    return turbojpeg_floor if case.path.suffix == ".jpg" else codec_floor


class CaseLoop:
    """``processes`` with one libvips thread each that make the result of a ``Case``.

    Those of the pipeline have the malloc settings of a worker. They run while the ``with`` lasts. Call
    ``prepare`` before ``run``.
    """

    def __init__(self, work: ModuleType, processes: int = 1) -> None:
        self.processes = processes
        self.result = b""
        """The result of the prepared case."""
        self._work = work
        settings = worker_settings() if work is PIPELINE else {"VIPS_CONCURRENCY": "1"}
        self._crew = ProcessGroup(processes, all_cores(), **settings)
        self._prepared: Case | None = None

    @property
    def pids(self) -> list[int]:
        """The ids of the processes."""
        return self._crew.pids

    def prepare(self, case: Case) -> None:
        """Load the image and make its result once. Raises ``RuntimeError`` if libvips cannot."""
        if case != self._prepared:
            self.result = self._crew.prepare(
                self._work.__name__, image=str(case.path), width=case.width, height=case.height
            )
            self._prepared = case

    def run(self, rounds: int) -> Turn:
        """Make the result ``rounds`` times in each process, all at the same time."""
        shift = self._crew.work(count=rounds)
        return Turn(shift.cpu_seconds, shift.done / shift.speed)

    def __enter__(self) -> Self:
        self._crew.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._crew.__exit__(None, None, None)


Loops = Callable[..., CaseLoop]
"""Starts or reuses a loop and prepares it: ``(case, work=BARE, processes=1)``."""
