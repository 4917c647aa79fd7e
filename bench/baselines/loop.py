"""A baseline without a server: processes that repeat the work, one a core by default."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, ClassVar, Self

from bench.baselines.interface import ClosedLoopRun, Request, all_cores
from bench.measuring.process_group import ProcessGroup
from vipsrv import pipeline


class Loop:
    """A ``Baseline`` that repeats the work of a module.

    ``work`` names the module, whose ``prepare(image, width, height)`` returns the function that makes one
    result. libvips has one thread in each process.
    """

    name: str
    what: str
    work: ClassVar[str]
    source = "memory"
    makes_result = True
    port = 0

    def __init__(self, cores: Sequence[int] | None = None, processes: int | None = None) -> None:
        self.cores: Sequence[int] = cores or all_cores()
        self._crew = ProcessGroup(processes or len(self.cores), self.cores, VIPS_CONCURRENCY="1")
        self._prepared: Request | None = None
        self._first = b""

    def missing(self) -> str | None:
        """See ``Baseline``: it needs nothing that vipsrv does not need."""
        return None

    def version(self) -> str:
        """See ``Baseline``."""
        return f"libvips {pipeline.version()}"

    def serves(self, request: Request) -> bool:
        """See ``Baseline``: it reads what vipsrv reads, and writes JPEG unless a subclass writes more."""
        return request.format == "jpeg"

    def ask(self, request: Request) -> bytes:
        """See ``Baseline``."""
        self._prepared = request
        self._first = self._crew.prepare(self.work, **self.arguments(request))
        return self._first

    def arguments(self, request: Request) -> dict[str, Any]:
        """The arguments of the work's ``prepare``."""
        return {"image": str(request.image), "width": request.width, "height": request.height}

    def load(
        self,
        request: Request,
        clients: ProcessGroup | None = None,  # noqa: ARG002 - a loop has no clients
        *,
        seconds: float | None = None,
        count: int | None = None,
    ) -> ClosedLoopRun:
        """See ``Baseline``."""
        if request != self._prepared:
            self.ask(request)
        shift = self._crew.work(seconds=seconds, count=count)
        return ClosedLoopRun(
            shift.done,
            shift.rate,
            shift.wall_seconds,
            shift.cpu_seconds,
            0.0,
            shift.latencies,
            result=self._first,
        )

    def cpu_seconds(self) -> float:
        """See ``Baseline``."""
        return self._crew.cpu_seconds()

    def __enter__(self) -> Self:
        self._crew.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._crew.__exit__(kind, error, traceback)
        self._prepared = None


class AnyFormatLoop(Loop):
    """A loop that makes results of any format: its work's ``prepare`` takes ``form`` and ``quality``, too."""

    def serves(self, request: Request) -> bool:  # noqa: ARG002 - it reads what vipsrv reads
        """See ``Baseline``."""
        return True

    def arguments(self, request: Request) -> dict[str, Any]:
        """See ``Loop``."""
        return super().arguments(request) | {"form": request.format, "quality": request.quality}
