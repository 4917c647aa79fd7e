"""What a benchmark ran on: without it no figure means anything."""

import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import PIL
import pyvips
from PIL import features

from bench.crew import ROOT
from vipsrv import pipeline


@dataclass(frozen=True)
class Machine:
    """The computer and its software, in words; ``cores`` are those that this process may use, ``memory`` is
    in bytes.
    """

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
        """For JSON."""
        return asdict(self)


def this_machine() -> Machine:
    """The one that this runs on."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        libvips=pipeline.version(),
        pyvips=str(pyvips.__version__),
        pillow=PIL.__version__,
        libjpeg_turbo_of_pillow=features.version("libjpeg_turbo") or "none",
    )


def commit() -> str:
    """The repository's commit, with a ``+`` behind it where files differ from it; empty outside of one."""
    if not (ROOT / ".git").exists():
        return ""
    revision = _git("rev-parse", "--short=12", "HEAD")
    return revision + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _cpu() -> str:
    """The model's name where the kernel tells one (/proc/cpuinfo), else the architecture."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()
