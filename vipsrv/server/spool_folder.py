"""The folder for large uploads and results: which one it is by default, and what its files are kept in."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

IN_MEMORY = frozenset({"tmpfs", "ramfs"})
"""File systems whose files are memory."""

_ON_DISK = Path("/var/tmp")  # noqa: S108 - only unlinked files are created there


def default_spool_folder() -> Path:
    """Return /var/tmp, or the folder for temporary files if nothing can be written there.

    On many systems /tmp is in memory and /var/tmp on a disk. A container with a read-only root has only /tmp.
    """
    return _ON_DISK if can_be_written(_ON_DISK) else Path(tempfile.gettempdir())


def can_be_written(folder: Path) -> bool:
    """Whether this process may create files there."""
    return os.access(folder, os.W_OK | os.X_OK)


def is_fallback(folder: Path) -> bool:
    """Whether the default is ``folder`` because nothing can be written to the better one."""
    return folder != _ON_DISK and not can_be_written(_ON_DISK)


def size_in_memory(folder: Path) -> int | None:
    """Return the bytes that fit into the file system of ``folder`` if that is in memory, ``None`` if not.

    A file system without a size (ramfs, or tmpfs with ``size=0``) states 0, and holds as much as the memory.
    """
    if filesystem_kind(folder) not in IN_MEMORY:
        return None
    try:
        return shutil.disk_usage(folder).total or sys.maxsize
    except OSError:
        return None


def filesystem_kind(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """Return the kind of file system that a folder is on (``ext4``, ``tmpfs``), or ``None`` if unknown."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return None
    real = folder.resolve()
    kinds = {}
    for line in lines:  # a later line with the same folder hides an earlier one
        _device, where, kind, *_ = line.split()
        point = Path(where.replace("\\040", " "))
        if real.is_relative_to(point):
            kinds[len(point.parts)] = kind
    return kinds[max(kinds)] if kinds else None
