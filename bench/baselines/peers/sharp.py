"""sharp, the most used image library for Node, which uses libvips, too."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from bench.baselines.interface import Request
from bench.baselines.peers.locate import missing_package, npm_folder, peers_folder
from bench.baselines.peers.npm import install_locked
from bench.baselines.served import Served

FOLDER = Path(__file__).with_name("sharp_server")
"""The server's code, and the lock file with the exact version of sharp."""

_PACKAGE = "sharp"


class Sharp(Served):
    """sharp in a Node HTTP server: a thread an image, as many images at a time as there are cores."""

    name = "sharp"
    what = "sharp in a Node HTTP server, a thread a core"
    client = "bench.baselines.peers.http_client"
    arguments: ClassVar[list[str]] = []

    def missing(self) -> str | None:
        """See ``Baseline``."""
        if shutil.which("node") and npm_folder(_PACKAGE, _PACKAGE):
            return None
        return missing_package(_PACKAGE, _PACKAGE)

    def version(self) -> str:
        """See ``Baseline``."""
        command = ["node", str(FOLDER / "server.cjs"), "--version"]
        told = subprocess.run(command, env=self.environment(), check=True, capture_output=True, text=True)
        return told.stdout.strip()

    def command(self) -> list[str]:
        """See ``Served``."""
        return ["node", str(FOLDER / "server.cjs"), *self.arguments]

    def environment(self) -> Mapping[str, str]:
        """See ``Served``."""
        modules = f"{npm_folder(_PACKAGE, _PACKAGE)}/node_modules"
        return os.environ | {"NODE_PATH": modules, "UV_THREADPOOL_SIZE": str(len(self.cores))}

    def client_arguments(self, request: Request) -> dict[str, Any]:
        """See ``Served``."""
        path = f"/{request.width}/{request.height}/{request.format}/{request.quality}"
        return {"path": path, "image": str(request.image)}


class SharpPlain(Sharp):
    """sharp without optimised Huffman tables; by default it optimises them, which takes time."""

    name = "sharp-plain"
    what = "the same without optimised Huffman tables"
    arguments: ClassVar[list[str]] = ["--plain"]

    def serves(self, request: Request) -> bool:
        """See ``Baseline``: it differs from sharp in JPEGs only."""
        return request.format == "jpeg"


def install() -> None:
    """Install the versions of the lock file. Raises as ``install_locked`` does."""
    install_locked(FOLDER, peers_folder() / _PACKAGE)
