"""vipsrv's own commands for many files, each with a server that it starts itself."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.baselines.batch.interface import Invocation, Task
from vipsrv import pipeline
from vipsrv.version import __version__

_NAME = "{stem}.{ext}"
_CLIENT = "from vipsrv.cli.client import main; main()"


class _Vipsrv:
    """What both commands have in common."""

    downloads = False

    def missing(self) -> str | None:
        """See ``BatchProgram``."""
        return None

    def version(self) -> str:
        """See ``BatchProgram``."""
        return f"vipsrv {__version__}, libvips {pipeline.version()}"


class VipsrvBatch(_Vipsrv):
    """``vipsrv batch``: the local engine, with its manifest."""

    name = "vipsrv-batch"
    what = "vipsrv batch, its defaults"

    def invocation(self, task: Task, output: Path, cores: int) -> Invocation:  # noqa: ARG002 - a worker a core
        """See ``BatchProgram``."""
        command = [sys.executable, "-m", "vipsrv", "batch", str(task.folder), str(output)]
        sizes = ["--sizes", f"{task.width}x", "--format", "jpeg", "--quality", str(task.quality)]
        return Invocation([*command, *sizes, "--name", _NAME], _without_settings())


class VipsrvClient(_Vipsrv):
    """``vipsrv-client`` with all files as arguments."""

    name = "vipsrv-client"
    what = "vipsrv-client with all files, its defaults"

    def invocation(self, task: Task, output: Path, cores: int) -> Invocation:  # noqa: ARG002 - a worker a core
        """See ``BatchProgram``."""
        command = [sys.executable, "-c", _CLIENT, *map(str, task.files)]
        size = ["--width", str(task.width), "--quality", str(task.quality)]
        return Invocation(
            [*command, "--output-dir", str(output), *size, "--name", _NAME], _without_settings()
        )


def _without_settings() -> Mapping[str, str]:
    """Remove the user's own settings of vipsrv."""
    return {name: "" for name in os.environ if name.startswith("VIPSRV_")}
