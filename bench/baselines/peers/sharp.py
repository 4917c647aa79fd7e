"""sharp, the most used image library for Node, which uses libvips, too."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from bench.baselines.interface import Request
from bench.baselines.peers.folder import peers_folder
from bench.baselines.served import Served

FOLDER = Path(__file__).with_name("sharp_server")
"""The server's code, and the lock file with the exact version of sharp."""


class Sharp(Served):
    """sharp in a Node HTTP server: a thread an image, as many images at a time as there are cores."""

    name = "sharp"
    what = "sharp in a Node HTTP server, a thread a core, the image in a POST"
    client = "bench.baselines.peers.http_client"
    arguments: ClassVar[list[str]] = []

    def missing(self) -> str | None:
        """See ``Baseline``."""
        if not shutil.which("node"):
            return "no node on the path; install Node 20.9 or later, then python -m bench.tools.install_peers"
        if not (installed_at() / "node_modules" / "sharp").is_dir():
            return "sharp is not installed; run python -m bench.tools.install_peers"
        return None

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
        modules = str(installed_at() / "node_modules")
        return os.environ | {"NODE_PATH": modules, "UV_THREADPOOL_SIZE": str(len(self.cores))}

    def client_arguments(self, request: Request) -> dict[str, Any]:
        """See ``Served``."""
        return {"path": f"/{request.width}/{request.height}", "image": str(request.image)}


class SharpPlain(Sharp):
    """sharp with the same Huffman tables as vipsrv; by default it optimises them, which takes time."""

    name = "sharp-plain"
    what = "the same without optimised Huffman tables"
    arguments: ClassVar[list[str]] = ["--plain"]


def installed_at() -> Path:
    """The folder that ``install`` installs to."""
    return peers_folder() / "sharp"


def install() -> None:
    """Install the versions of the lock file.

    Raises ``subprocess.CalledProcessError``, and ``OSError`` without npm.
    """
    installed_at().mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(FOLDER / name, installed_at() / name)
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("no npm on the path; it comes with Node 20.9 or later")
    subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=installed_at(), check=True)
