"""Where the programs of the peers are: a variable, the folder of ``install_peers``, the path.

``VIPSRV_PEER_IMGPROXY=/opt/imgproxy/bin/imgproxy`` chooses a program; for a peer from npm it is the folder
with ``node_modules`` in it. A variable that points to nothing makes the peer missing, and nothing else is
tried.
"""

import os
import shutil
from pathlib import Path

from bench.images import cache_folder

START_OF_VARIABLES = "VIPSRV_PEER_"


def peers_folder() -> Path:
    """The folder of the installed peers, beside the test images and outside the repository."""
    return cache_folder() / "peers"


def variable(name: str) -> str:
    """The environment variable of a peer."""
    return START_OF_VARIABLES + name.upper().replace("-", "_")


def program(name: str, installed: str | None = None, on_path: str | None = None) -> Path | None:
    """The program of a peer, or ``None``.

    ``installed`` is its place in ``peers_folder``, and ``on_path`` its name on the path if that is not the
    peer's.
    """
    chosen = os.environ.get(variable(name))
    if chosen:
        path = Path(chosen)
        return path if os.access(path, os.X_OK) and path.is_file() else None
    if installed and (peers_folder() / installed).is_file():
        return peers_folder() / installed
    found = shutil.which(on_path or name)
    return Path(found) if found else None


def npm_folder(name: str, package: str) -> Path | None:
    """The folder whose ``node_modules`` has the package, or ``None``."""
    chosen = os.environ.get(variable(name))
    folder = Path(chosen) if chosen else peers_folder() / name
    return folder if (folder / "node_modules" / package).is_dir() else None


def missing_program(name: str, how: str) -> str:
    """One line that says that a program was not found, and what to set; ``how`` says how to get it."""
    told = os.environ.get(variable(name))
    if told:
        return f"{variable(name)}={told} is no program that can be run"
    return f"no {name} on the path: set {variable(name)} to the program, or {how}"


def missing_package(name: str, package: str) -> str:
    """The same for an npm package."""
    if not shutil.which("node"):
        return "no node on the path: install Node 20.9 or later"
    told = os.environ.get(variable(name))
    if told:
        return f"{variable(name)}={told} has no node_modules/{package}"
    return (
        f"no npm package {package}: set {variable(name)} to the folder of its node_modules, "
        f"or run python -m bench.tools.install_peers {name}"
    )
