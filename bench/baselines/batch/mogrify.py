"""ImageMagick's ``mogrify``, by itself and under GNU parallel."""

import shutil
import subprocess
from pathlib import Path

from bench.baselines.batch import gnu_parallel
from bench.baselines.batch.interface import Invocation, Task


class Mogrify:
    """``mogrify -thumbnail``, which has the decoder of JPEG reduce the image first (``jpeg:size``).

    ``margin`` is the size that the decoder has to leave, in widths of the result: 2 is what ImageMagick's
    manual advises, and 1 is as fast as can be. ``parallel`` runs it under GNU parallel with one thread a
    process; otherwise one process uses all cores by OpenMP.
    """

    downloads = False

    def __init__(self, *, margin: int, parallel: bool) -> None:
        words = ["mogrify", *(["parallel"] if parallel else []), *(["fast"] if margin == 1 else [])]
        self.name = "-".join(words)
        how = (
            f"under GNU parallel, {gnu_parallel.FILES_A_CALL} files a call, 1 thread"
            if parallel
            else "one process, its default threads"
        )
        self.what = f"mogrify -thumbnail, JPEGs decoded to {margin} × the result or more; {how}"
        self._margin = margin
        self._parallel = parallel

    def missing(self) -> str | None:
        """See ``BatchProgram``."""
        if shutil.which("mogrify") is None:
            return "no mogrify on the path: install ImageMagick"
        return gnu_parallel.missing() if self._parallel else None

    def version(self) -> str:
        """See ``BatchProgram``."""
        done = subprocess.run(["mogrify", "-version"], capture_output=True, text=True, check=True)  # noqa: S607
        words = done.stdout.splitlines()[0].removeprefix("Version: ").split()
        own = " ".join(words[:3])
        return f"{own}, {gnu_parallel.version()}" if self._parallel else own

    def invocation(self, task: Task, output: Path, cores: int) -> Invocation:
        """See ``BatchProgram``."""
        # The height is no limit. One that the image does not have would make the decoder enlarge it.
        least = task.width * self._margin
        program = [
            *("mogrify", "-define", f"jpeg:size={least}x1", "-path", str(output), "-format", "jpg"),
            *("-thumbnail", f"{task.width}x", "-quality", str(task.quality), "-sampling-factor", "4:2:0"),
        ]
        if self._parallel:
            one = {"MAGICK_THREAD_LIMIT": "1", "OMP_NUM_THREADS": "1"}
            return Invocation(gnu_parallel.command(task, cores, *program), one)
        return Invocation(
            [*program, *map(str, task.files)], {"MAGICK_THREAD_LIMIT": "", "OMP_NUM_THREADS": ""}
        )
