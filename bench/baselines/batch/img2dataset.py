"""img2dataset, which downloads images and resizes them for the training of models."""

import subprocess
import sys
from pathlib import Path

from bench.baselines.batch.interface import Invocation, Task
from bench.baselines.peers.locate import missing_program, peers_folder, program

REQUIREMENT = "img2dataset==1.47.0"

_NAME = "img2dataset"
_INSTALLED = "img2dataset/bin/img2dataset"

_SHARDS_A_PROCESS = 4
"""So few that a shard costs little, and so many that the processes end at about the same time."""

_QUIET = {"NO_ALBUMENTATIONS_UPDATE": "1"}
"""Without it, it asks a server on the Internet whether there is a newer version of one of its libraries."""


class Img2dataset:
    """One process a core, ``threads`` of them to download in each; results as files or as tar archives.

    ``keep_ratio_largest`` makes what the other programs make. EXIF is not read, which is its default, because
    no other program does.
    """

    downloads = True

    def __init__(self, threads: int) -> None:
        self.name = f"img2dataset-{threads}"
        self.what = f"img2dataset, a process a core, {threads} threads each, results as files"
        self._threads = threads

    def missing(self) -> str | None:
        """See ``BatchProgram``."""
        if program(_NAME, _INSTALLED):
            return None
        return missing_program(_NAME, "run python -m bench.tools.install_peers img2dataset")

    def version(self) -> str:
        """See ``BatchProgram``."""
        code = (
            "from importlib.metadata import version; import cv2; "
            "print(f'img2dataset {version(\"img2dataset\")}, OpenCV {cv2.__version__}')"
        )
        command = [str(_program().with_name("python")), "-c", code]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def invocation(self, task: Task, output: Path, cores: int) -> Invocation:
        """See ``BatchProgram``."""
        listing = task.listing.with_suffix(".urls.txt")
        listing.write_text("".join(f"{task.url}/{path.name}\n" for path in task.files))
        shard = -(-len(task.files) // (cores * _SHARDS_A_PROCESS))
        settings = {
            "url_list": listing,
            "output_folder": output,
            "image_size": task.width,
            "resize_mode": "keep_ratio_largest",
            "encode_quality": task.quality,
            "output_format": "files",
            "processes_count": cores,
            "thread_count": self._threads,
            "number_sample_per_shard": shard,
            "extract_exif": False,
        }
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        return Invocation([str(_program()), *arguments], _QUIET)


def _program() -> Path:
    found = program(_NAME, _INSTALLED)
    assert found is not None
    return found


def install() -> None:
    """Install it in an environment of its own: it needs old versions of its libraries.

    Raises ``subprocess.CalledProcessError``.
    """
    folder = peers_folder() / _NAME
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", REQUIREMENT]
    subprocess.run(pip, check=True)
