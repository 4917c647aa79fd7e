"""vipsrv itself, as one of the servers to compare."""

import os
import sys
from collections.abc import Mapping, Sequence

from bench.baselines.served import Served
from vipsrv import pipeline
from vipsrv.version import __version__


class OwnServer(Served):
    """``vipsrv serve`` with its defaults, and a worker a core unless ``workers`` is given."""

    name = "vipsrv"
    what = "vipsrv serve, a worker a core, version 1"

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

    def environment(self) -> Mapping[str, str]:
        """See ``Served``: without the user's own settings of vipsrv."""
        return {name: value for name, value in os.environ.items() if not name.startswith("VIPSRV_")}
