"""vipsrv itself, as one of the servers to compare."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.baselines.interface import Request
from bench.baselines.served import Served
from bench.measuring.process_group import member_number
from bench.wire import Connection
from vipsrv import pipeline
from vipsrv.version import __version__


class OwnServer(Served):
    """``vipsrv serve`` with its defaults, and a worker a core unless ``workers`` is given."""

    name = "vipsrv"
    what = "vipsrv serve, a worker a core, version 2 over kept connections"
    client = __name__

    def __init__(self, cores: Sequence[int] | None = None, workers: int | None = None) -> None:
        super().__init__(cores)
        self._workers = workers or len(self.cores)

    def version(self) -> str:
        """See ``Baseline``."""
        return f"vipsrv {__version__}, libvips {pipeline.version()}"

    def command(self) -> list[str]:
        """See ``Served``."""
        workers = ("--workers", str(self._workers))
        return [sys.executable, "-m", "vipsrv", "serve", "--port", "0", "--log-level", "warning", *workers]

    def client_arguments(self, request: Request) -> dict[str, Any]:
        """See ``Served``."""
        options = {name: getattr(request, name) for name in ("width", "height", "format", "quality")}
        return {"image": str(request.image), "options": options}

    def environment(self) -> Mapping[str, str]:
        """See ``Served``: without the user's own settings of vipsrv."""
        return {name: value for name, value in os.environ.items() if not name.startswith("VIPSRV_")}


def prepare(ports: Sequence[int], image: str, options: dict[str, Any]) -> Callable[[], bytes]:
    """Return the function by which a client asks once over version 2, on a connection that it keeps."""
    data = Path(image).read_bytes()
    connection = Connection(ports[member_number() % len(ports)])

    def ask() -> bytes:
        connection.send(data, **options)
        return connection.receive()

    return ask
