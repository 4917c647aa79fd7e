"""The machine and the software that a benchmark ran on; every result records them."""

import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import PIL
import psutil
import pyvips
from PIL import features

from bench import ROOT
from vipsrv import pipeline


@dataclass(frozen=True)
class Machine:
    """The machine and its software. ``cores`` are those that this process may use, ``memory`` is in bytes."""

    cpu: str
    cores: int
    memory: int
    kernel: str
    python: str
    libvips: str
    pyvips: str
    pillow: str
    libjpeg_turbo_of_pillow: str

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


def this_machine() -> Machine:
    """Describe the machine that this runs on."""
    return Machine(
        cpu=processor(),
        cores=len(os.sched_getaffinity(0)),
        memory=psutil.virtual_memory().total,
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        libvips=pipeline.version(),
        pyvips=str(pyvips.__version__),
        pillow=PIL.__version__,
        libjpeg_turbo_of_pillow=features.version("libjpeg_turbo") or "none",
    )


def processor() -> str:
    """The processor's model name from /proc/cpuinfo (psutil has none), else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str | None:
    """The repository's commit, with a ``+`` if files differ from it; ``None`` outside a repository."""
    try:
        described = subprocess.run(
            ["git", "-C", ROOT, "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return None
    return described.stdout.strip()
