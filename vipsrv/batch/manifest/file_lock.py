"""Locks on files that end with the process that holds them, also when it is killed."""

import errno
import fcntl
import os
from pathlib import Path

from vipsrv.errors import StorageFailed


class Locked(Exception):
    """Another process holds the lock."""


def lock_file(descriptor: int, path: Path) -> None:
    """Lock an open file for this process alone.

    The lock ends when the descriptor is closed, or the process ends. Raises ``Locked``, or ``StorageFailed``
    where the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            raise Locked(str(path)) from None
        raise StorageFailed(
            str(path), f"the file system cannot lock a file (flock): {error.strerror or error}"
        ) from None


def is_same_file(descriptor: int, path: Path) -> bool:
    """Whether ``path`` still leads to the open file, and not to nothing or to another one."""
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (now.st_dev, now.st_ino) == (opened.st_dev, opened.st_ino)
