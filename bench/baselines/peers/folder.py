"""Where peers are installed, and how those that read files are given some."""

import http.client
import shutil
import socket
import subprocess
import tempfile
import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.baselines.interface import Request
from bench.baselines.served import Served
from bench.images import cache_folder

START_SECONDS = 60


def peers_folder() -> Path:
    """Beside the images of the benchmarks, outside the repository."""
    return cache_folder() / "peers"


class FileReader(Served):
    """A server of HTTP that reads images from ``folder`` and is told its port, ``free_port``.

    An image is copied there before it is asked for, and the server can read nothing else.
    """

    client = "bench.baselines.peers.http_client"
    health: str
    """A path that answers 200 as soon as it serves."""

    def __init__(self, cores: Sequence[int] | None = None) -> None:
        super().__init__(cores)
        self._ports_told: list[int] = []

    @abstractmethod
    def path(self, request: Request) -> str:
        """What is asked for over HTTP; the image lies in the folder under its own name."""

    def question(self, request: Request) -> dict[str, Any]:
        """See ``Served``."""
        copy = self.folder / request.image.name
        if not copy.exists():
            shutil.copyfile(request.image, copy)
        return {"path": self.path(request), "image": None}

    def free_port(self) -> int:
        """A port that nobody listens on, for the server that is started next."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._ports_told.append(listener.getsockname()[1])
        return self._ports_told[-1]

    def wait_until_ready(self, process: subprocess.Popen[str]) -> int:
        """See ``Served``: it says nothing, so it is asked until it answers."""
        port = self._ports_told.pop(0)
        end = time.monotonic() + START_SECONDS
        while not _is_healthy(port, self.health):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} did not start; see above")
            time.sleep(0.05)
        return port

    def __enter__(self) -> Self:
        self._temporary = tempfile.TemporaryDirectory(prefix="vipsrv-bench-")
        self.folder = Path(self._temporary.name)
        try:
            return super().__enter__()
        except BaseException:
            self._temporary.cleanup()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        self._temporary.cleanup()


def _is_healthy(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()
