"""Installing npm packages at the exact versions of a lock file."""

import shutil
import subprocess
from pathlib import Path


def install_locked(source: Path, target: Path) -> None:
    """Install what the lock file in ``source`` names into ``target``.

    Raises ``subprocess.CalledProcessError``, and ``OSError`` without npm.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("no npm on the path; it comes with Node 20.9 or later")
    target.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(source / name, target / name)
    subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=target, check=True)
