"""``vipsthumbnail``, the command of libvips, under GNU parallel."""

import shutil
import subprocess
from pathlib import Path

from bench.baselines.batch import gnu_parallel
from bench.baselines.batch.interface import Invocation, Task


class Vipsthumbnail:
    """``concurrency`` is the number of libvips' threads in each process; ``None`` is its default."""

    downloads = False

    def __init__(self, concurrency: int | None) -> None:
        threads = "libvips' default threads" if concurrency is None else f"{concurrency} thread"
        self.name = "vipsthumbnail" if concurrency is None else f"vipsthumbnail-{concurrency}"
        self.what = f"vipsthumbnail under GNU parallel, {gnu_parallel.FILES_A_CALL} files a call, {threads}"
        self._concurrency = concurrency

    def missing(self) -> str | None:
        """See ``BatchProgram``."""
        if shutil.which("vipsthumbnail") is None:
            return "no vipsthumbnail on the path: install libvips-tools"
        return gnu_parallel.missing()

    def version(self) -> str:
        """See ``BatchProgram``."""
        asked = ["vipsthumbnail", "--vips-version"]
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
        return f"{done.stdout.strip()}, {gnu_parallel.version()}"

    def invocation(self, task: Task, output: Path, cores: int) -> Invocation:
        """See ``BatchProgram``."""
        program = [
            "vipsthumbnail",
            "--size",
            f"{task.width}x",
            "--output",
            f"{output}/%s.jpg[Q={task.quality}]",
        ]
        threads = "" if self._concurrency is None else str(self._concurrency)
        return Invocation(gnu_parallel.command(task, cores, *program), {"VIPS_CONCURRENCY": threads})
