"""A server that is started for a measurement, as a process of its own."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.measuring.processes import children, cpu_seconds

_READY = re.compile(r"vipsrv listening on (.*):(\d+)\n")


class Server:
    """``vipsrv serve`` on a free loopback port, which runs until the end of the ``with``.

    ``arguments`` are added to the command; with several ``--listen`` among them, ``ports`` has the port of
    each. ``module`` is another module to run instead, which prints its
    address in the same words. ``python`` and ``directory`` choose another interpreter and the working
    directory, from which ``-m`` imports first; ``environment`` replaces that of this process.
    """

    def __init__(
        self,
        *arguments: str,
        module: str | None = None,
        python: str = sys.executable,
        directory: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        command = ["vipsrv", "serve", "--port", "0"] if module is None else [module]
        self.process = subprocess.Popen(
            [python, "-m", *command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            cwd=directory,
            env=environment or _environment(directory),
        )
        assert self.process.stdout is not None
        self.ports: list[int] = []
        for _ in range(max(1, arguments.count("--listen"))):
            ready = _READY.fullmatch(self.process.stdout.readline())
            if ready is None:
                self.process.wait()
                raise SystemExit("the server did not start; its messages are above")
            self.ports.append(int(ready[2]))
            self.host = ready[1]
        self.port = self.ports[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate()

    @property
    def pids(self) -> list[int]:
        """The process id of the gateway, then those of its workers."""
        return [self.process.pid, *children(self.process.pid)]

    def cpu_seconds(self) -> list[float]:
        """User and system time of each of ``pids`` so far."""
        return [cpu_seconds(pid) for pid in self.pids]


def _environment(directory: Path | None) -> dict[str, str] | None:
    """Let the workers of a server from another checkout import that checkout's code, too."""
    return None if directory is None else {**os.environ, "PYTHONPATH": str(directory)}
