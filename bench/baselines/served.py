"""A baseline that is a server in processes of its own."""

import re
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from bench.baselines.interface import Request, Run, all_cores
from bench.crew import ROOT, Crew, confined_to
from bench.processes import tree_cpu_seconds

_READY = re.compile(r".*listening on (?:.*:)?(\d+)\n")
STOP_SECONDS = 10


class Served(ABC):
    """A ``Baseline``. A subclass gives the command of a server that prints ``listening on PORT``.

    ``client`` names the module whose ``prepare`` gives the function that asks it once; see ``question``.
    """

    name: str
    what: str
    client: ClassVar[str] = "bench.baselines.version1_client"

    def __init__(self, cores: Sequence[int] | None = None) -> None:
        self.cores: Sequence[int] = cores or all_cores()
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """What to start."""

    def environment(self) -> Mapping[str, str] | None:
        """All of its environment; ``None`` for that of this process."""
        return None

    def missing(self) -> str | None:
        """Nothing is needed that vipsrv does not need, too."""
        return None

    def reads(self, picture: Path) -> bool:  # noqa: ARG002 - most read all that is measured
        """See ``Baseline``."""
        return True

    def question(self, request: Request) -> dict[str, Any]:
        """The arguments of the client's ``prepare``."""
        return {
            "port": self.port,
            "picture": str(request.picture),
            "width": request.width,
            "height": request.height,
        }

    def ask(self, request: Request) -> bytes:
        """See ``Baseline``."""
        with Crew(1, all_cores()) as client:
            return client.prepare(self.client, **self.question(request))

    def load(
        self, request: Request, clients: Crew, *, seconds: float | None = None, count: int | None = None
    ) -> Run:
        """See ``Baseline``."""
        clients.prepare(self.client, **self.question(request))
        before = self.cpu_seconds()
        shift = clients.work(seconds=seconds, count=count)
        # All of its requests are answered by now, so that no CPU time of others is in it.
        taken = self.cpu_seconds() - before
        return Run(shift.done, shift.rate, shift.wall_seconds, taken, shift.cpu_seconds)

    def cpu_seconds(self) -> float:
        """See ``Baseline``."""
        return tree_cpu_seconds(self.pid)

    @property
    def pid(self) -> int:
        """The process that was started; others are its children."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it listens: sets ``port``. Raises ``RuntimeError`` where it ends."""
        with confined_to(self.cores):
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                env=self.environment(),
                cwd=ROOT,
            )
        assert self._process.stdout is not None
        ready = _READY.fullmatch(self._process.stdout.readline())
        if ready is None:
            raise RuntimeError(f"{self.name} did not start; see above")
        self.port = int(ready[1])

    def stop(self) -> None:
        """End it, by force if it does not go."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process, self.port = None, 0

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
