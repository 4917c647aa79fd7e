"""Peers that are HTTP servers which read images from a folder of their own disk."""

import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.baselines.interface import Request
from bench.baselines.peers.http_peer import HttpPeer

_CLIENTS = 256
"""The most clients that there may be."""


class FileReader(HttpPeer):
    """An HTTP server that reads images from ``folder``.

    An image is copied to the folder before it is requested; the server can read nothing else. It has a name
    for each client, because some servers do the work of equal requests that arrive together only once.
    """

    source = "file"
    folder: Path

    def __init__(self, cores: Sequence[int] | None = None) -> None:
        super().__init__(cores)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @abstractmethod
    def path(self, request: Request, name: str) -> str:
        """The path of the HTTP request; the image is in the folder under this name."""

    def client_arguments(self, request: Request) -> dict[str, Any]:
        """See ``Served``."""
        copy = self.folder / f"0-{request.image.name}"
        if not copy.exists():
            shutil.copyfile(request.image, copy)
            copy.chmod(0o644)  # the server may run as another user
            for number in range(1, _CLIENTS):
                copy.with_name(f"{number}-{request.image.name}").hardlink_to(copy)
        return {"path": self.path(request, f"{{client}}-{request.image.name}"), "image": None}

    def __enter__(self) -> Self:
        self._temporary = tempfile.TemporaryDirectory(prefix="vipsrv-bench-")
        self.folder = Path(self._temporary.name)
        self.folder.chmod(0o755)
        try:
            return super().__enter__()
        except BaseException:
            self._temporary.cleanup()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        assert self._temporary is not None
        self._temporary.cleanup()
