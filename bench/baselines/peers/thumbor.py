"""thumbor, an image server in Python that uses Pillow."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.baselines.interface import Request
from bench.baselines.peers.file_reader import FileReader
from bench.baselines.peers.locate import missing_program, peers_folder, program

REQUIREMENT = "thumbor==7.8.0"

_INSTALLED = "thumbor/bin/thumbor"

_CONFIGURATION = """
LOADER = "thumbor.loaders.file_loader"
FILE_LOADER_ROOT_PATH = {folder!r}
STORAGE = "thumbor.storages.no_storage"
RESULT_STORAGE = None
ENGINE = "thumbor.engines.pil"
PROGRESSIVE_JPEG = False
HEALTHCHECK_ROUTE = "/healthcheck"
"""
"""All other settings are thumbor's defaults: Lanczos, Pillow's draft mode, and optimised Huffman tables,
which cannot be turned off."""


class Thumbor(FileReader):
    """One thumbor a core, each with its own port.

    With one port for all (``--processes``) the kernel spreads a few connections unevenly, and each process
    handles one image at a time.
    """

    name = "thumbor"
    what = "thumbor, a process a core"
    health = "/healthcheck"

    def __init__(self, cores: Sequence[int] | None = None) -> None:
        super().__init__(cores)
        self.instances = len(self.cores)

    def missing(self) -> str | None:
        """See ``Baseline``."""
        if program(self.name, _INSTALLED):
            return None
        return missing_program(self.name, "run python -m bench.tools.install_peers thumbor")

    def version(self) -> str:
        """See ``Baseline``."""
        code = (
            "from importlib.metadata import version; from PIL import features; print("
            'f\'thumbor {version("thumbor")}, Pillow {version("pillow")}, \''
            "f'libjpeg-turbo {features.version(\"libjpeg_turbo\")}')"
        )
        command = [str(_program().with_name("python")), "-c", code]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def command(self) -> list[str]:
        """See ``Served``."""
        configuration = self.folder / "thumbor.conf"
        configuration.write_text(_CONFIGURATION.format(folder=str(self.folder)))
        return [
            str(_program()),
            *("--ip", "127.0.0.1", "--port", str(self.free_port())),
            *("--conf", str(configuration), "--log-level", "error"),
        ]

    def path(self, request: Request, name: str) -> str:
        """See ``FileReader``."""
        filters = f"filters:stretch():format({request.format}):quality({request.quality})"
        return f"/unsafe/{request.width}x{request.height}/{filters}/{name}"


def _program() -> Path:
    found = program(Thumbor.name, _INSTALLED)
    assert found is not None
    return found


def install() -> None:
    """Install it in an environment of its own. Raises ``subprocess.CalledProcessError``."""
    folder = peers_folder() / Thumbor.name
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", REQUIREMENT]
    subprocess.run(pip, check=True)
