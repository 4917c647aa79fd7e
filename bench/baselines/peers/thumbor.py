"""thumbor, an image server in Python that uses Pillow."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.baselines.interface import Request
from bench.baselines.peers.folder import FileReader, peers_folder

REQUIREMENT = "thumbor==7.8.0"

_CONFIGURATION = """
LOADER = "thumbor.loaders.file_loader"
FILE_LOADER_ROOT_PATH = {folder!r}
STORAGE = "thumbor.storages.no_storage"
RESULT_STORAGE = None
ENGINE = "thumbor.engines.pil"
QUALITY = 85
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
    what = "thumbor, a process a core, the image in a file"
    health = "/healthcheck"

    def __init__(self, cores: Sequence[int] | None = None) -> None:
        super().__init__(cores)
        self.instances = len(self.cores)

    def missing(self) -> str | None:
        """See ``Baseline``."""
        if not (installed_at() / "bin" / "thumbor").exists():
            return "thumbor is not installed; run python -m bench.tools.install_peers"
        return None

    def version(self) -> str:
        """See ``Baseline``."""
        program = (
            "from importlib.metadata import version; from PIL import features; print("
            'f\'thumbor {version("thumbor")}, Pillow {version("pillow")}, \''
            "f'libjpeg-turbo {features.version(\"libjpeg_turbo\")}')"
        )
        command = [str(installed_at() / "bin" / "python"), "-c", program]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def command(self) -> list[str]:
        """See ``Served``."""
        configuration = self.folder / "thumbor.conf"
        configuration.write_text(_CONFIGURATION.format(folder=str(self.folder)))
        return [
            str(installed_at() / "bin" / "thumbor"),
            *("--ip", "127.0.0.1", "--port", str(self.free_port())),
            *("--conf", str(configuration), "--log-level", "error"),
        ]

    def path(self, request: Request) -> str:
        """See ``FileReader``."""
        filters = "filters:stretch():format(jpeg)"
        return f"/unsafe/{request.width}x{request.height}/{filters}/{request.image.name}"


def installed_at() -> Path:
    """The virtual environment that ``install`` makes."""
    return peers_folder() / "thumbor"


def install() -> None:
    """Install it in an environment of its own. Raises ``subprocess.CalledProcessError``."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(installed_at())], check=True)
    pip = [str(installed_at() / "bin" / "python"), "-m", "pip", "install", "--quiet", REQUIREMENT]
    subprocess.run(pip, check=True)
