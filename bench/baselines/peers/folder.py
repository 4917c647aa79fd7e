"""The folder that peers are installed in, and peers that read images from a folder."""

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
    """The folder of the installed peers, beside the test images and outside the repository."""
    return cache_folder() / "peers"


class FileReader(Served):
    """An HTTP server that reads images from ``folder`` and listens on a given port (``free_port``).

    An image is copied to the folder before it is requested; the server can read nothing else.
    """

    client = "bench.baselines.peers.http_client"
    health: str
    """A path that returns 200 as soon as the server is ready."""

    def __init__(self, cores: Sequence[int] | None = None) -> None:
        super().__init__(cores)
        self._ports_told: list[int] = []

    @abstractmethod
    def path(self, request: Request) -> str:
        """The path of the HTTP request; the image is in the folder under its own name."""

    def client_arguments(self, request: Request) -> dict[str, Any]:
        """See ``Served``."""
        copy = self.folder / request.image.name
        if not copy.exists():
            shutil.copyfile(request.image, copy)
        return {"path": self.path(request), "image": None}

    def free_port(self) -> int:
        """Reserve a free port for the server that is started next."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._ports_told.append(listener.getsockname()[1])
        return self._ports_told[-1]

    def wait_until_ready(self, process: subprocess.Popen[str]) -> int:
        """See ``Served``: the server prints nothing, so its health path is polled."""
        port = self._ports_told.pop(0)
        end = time.monotonic() + START_SECONDS
        while not _is_healthy(port, self.health):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} did not start; its messages are above")
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
