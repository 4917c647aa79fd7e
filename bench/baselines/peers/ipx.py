"""ipx, the image server of Nuxt, which uses sharp."""

import json
import os
import shutil
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from bench.baselines.interface import Request
from bench.baselines.peers.file_reader import FileReader
from bench.baselines.peers.locate import missing_package, npm_folder, peers_folder
from bench.baselines.peers.npm import install_locked

FOLDER = Path(__file__).with_name("ipx_server")
"""The lock file with the exact versions of ipx and of the sharp that it uses."""


class Ipx(FileReader):
    """ipx's own command: a thread an image, as many images at a time as there are cores.

    Its JPEGs are always progressive, which takes time and saves bytes.
    """

    name = "ipx"
    what = "ipx serve in Node, a thread a core, progressive JPEGs"
    health = "/"
    healthy = HTTPStatus.BAD_REQUEST  # its answer to an address without an image

    def missing(self) -> str | None:
        """See ``Baseline``."""
        if shutil.which("node") and npm_folder(self.name, "ipx"):
            return None
        return missing_package(self.name, "ipx")

    def version(self) -> str:
        """See ``Baseline``."""
        folder = npm_folder(self.name, "ipx")
        assert folder is not None
        folder /= "node_modules"
        told = [
            f"{package} {json.loads((folder / package / 'package.json').read_text())['version']}"
            for package in ("ipx", "sharp")
        ]
        return ", ".join(told)

    def command(self) -> list[str]:
        """See ``Served``."""
        program = npm_folder(self.name, "ipx")
        assert program is not None
        return [
            *("node", str(program / "node_modules" / "ipx" / "bin" / "ipx.mjs"), "serve"),
            *("--dir", str(self.folder), "--host", "127.0.0.1", "--port", str(self.free_port())),
        ]

    def environment(self) -> Mapping[str, str]:
        """See ``Served``."""
        threads = {"UV_THREADPOOL_SIZE": str(len(self.cores)), "VIPS_CONCURRENCY": "1"}
        return os.environ | threads | {"NODE_ENV": "production"}

    def path(self, request: Request, name: str) -> str:
        """See ``FileReader``."""
        size = f"s_{request.width}x{request.height},fit_fill"
        return f"/{size},f_{request.format},q_{request.quality}/{name}"


def install() -> None:
    """Install the versions of the lock file. Raises as ``install_locked`` does."""
    install_locked(FOLDER, peers_folder() / Ipx.name)
