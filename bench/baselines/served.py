"""A baseline that is a server in processes of its own."""

import re
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from bench import ROOT
from bench.baselines.interface import ClosedLoopRun, Request, all_cores
from bench.measuring.process_group import ProcessGroup, confined_to, member_number
from bench.measuring.processes import tree_cpu_seconds
from bench.wire import resize_once

_READY = re.compile(r".*listening on (?:.*:)?(\d+)\n")
STOP_SECONDS = 10


class Served(ABC):
    """A ``Baseline``. A subclass gives the command of a server that prints ``listening on PORT``.

    ``client`` names a module whose ``prepare`` returns the function that sends one request; its arguments are
    ``ports`` and those of ``client_arguments``. The clients are spread evenly over ``instances`` servers.
    """

    name: str
    what: str
    source = "upload"
    makes_result = True
    client: ClassVar[str] = __name__

    def __init__(self, cores: Sequence[int] | None = None) -> None:
        self.cores: Sequence[int] = cores or all_cores()
        self.instances = 1
        self.ports: list[int] = []
        self._processes: list[subprocess.Popen[str]] = []

    @property
    def port(self) -> int:
        """See ``Baseline``: the port of the first instance."""
        return self.ports[0] if self.ports else 0

    @abstractmethod
    def command(self) -> list[str]:
        """The command that starts the server."""

    def environment(self) -> Mapping[str, str] | None:
        """The server's whole environment; ``None`` for that of this process."""
        return None

    def wait_until_ready(self, process: subprocess.Popen[str]) -> int:
        """The port that the started process listens on. Raises ``RuntimeError`` if it has ended instead."""
        assert process.stdout is not None
        ready = _READY.fullmatch(process.stdout.readline())
        if ready is None:
            raise RuntimeError(f"{self.name} did not start; its messages are above")
        return int(ready[1])

    def missing(self) -> str | None:
        """See ``Baseline``: it needs nothing that vipsrv does not need."""
        return None

    @abstractmethod
    def version(self) -> str:
        """See ``Baseline``."""

    def serves(self, request: Request) -> bool:  # noqa: ARG002 - most servers read and write all of them
        """See ``Baseline``."""
        return True

    def client_arguments(self, request: Request) -> dict[str, Any]:
        """The arguments of the client's ``prepare`` beside ``ports``."""
        return {"image": str(request.image), "width": request.width, "height": request.height}

    def ask(self, request: Request) -> bytes:
        """See ``Baseline``."""
        with ProcessGroup(1, all_cores()) as client:
            return self._prepare(client, request)

    def load(
        self,
        request: Request,
        clients: ProcessGroup,
        *,
        seconds: float | None = None,
        count: int | None = None,
    ) -> ClosedLoopRun:
        """See ``Baseline``."""
        result = self._prepare(clients, request)
        clients.check(
            "bench.baselines.result_check",
            format=request.format,
            width=request.width,
            height=request.height,
            quality=request.quality,
        )
        before = self.cpu_seconds()
        shift = clients.work(seconds=seconds, count=count)
        # All of these requests have been answered, so the time contains no other requests.
        taken = self.cpu_seconds() - before
        return ClosedLoopRun(
            shift.done,
            shift.rate,
            shift.wall_seconds,
            taken,
            shift.cpu_seconds,
            shift.latencies,
            shift.wrong,
            shift.problem,
            result,
        )

    def cpu_seconds(self) -> float:
        """See ``Baseline``."""
        return sum(tree_cpu_seconds(process.pid) for process in self._processes)

    def __enter__(self) -> Self:
        try:
            with confined_to(self.cores):
                for _ in range(self.instances):
                    self._start()
            for process in self._processes:
                self.ports.append(self.wait_until_ready(process))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _prepare(self, clients: ProcessGroup, request: Request) -> bytes:
        return clients.prepare(self.client, ports=self.ports, **self.client_arguments(request))

    def _start(self) -> None:
        process = subprocess.Popen(
            self.command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment(),
            cwd=ROOT,
        )
        self._processes.append(process)

    def _stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self._processes, self.ports = [], []


def prepare(ports: Sequence[int], image: str, width: int, height: int) -> Callable[[], bytes]:
    """Return the function by which a client asks once over version 1: a connection for each request."""
    data = Path(image).read_bytes()
    port = ports[member_number() % len(ports)]
    return lambda: resize_once(port, data, width, height)
