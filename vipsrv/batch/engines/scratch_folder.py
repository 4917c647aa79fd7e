"""A folder for the unix sockets and logs of one process, which the next such process removes if need be."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vipsrv.batch.manifest.file_lock import Locked, lock_file
from vipsrv.errors import StorageFailed

_PREFIX = "vipsrv-run-"
_NEW = "vipsrv-new-"
_LOCK = "lock"

_LONGEST_PARENT = 24
"""Bytes: the path of a unix socket has 107 at most, and Ray's own names take eighty of them."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a folder that only this user can enter, and remove it at the end of the block.

    Its path is short. A process that is killed leaves its folder to the next one that makes one: the lock on
    a file in it shows that the process is dead. Raises ``StorageFailed``.
    """
    parent = _parent()
    _remove_left(parent)
    try:
        made = Path(tempfile.mkdtemp(prefix=_NEW, dir=parent))
        descriptor = os.open(made / _LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise StorageFailed(str(parent), error.strerror or str(error)) from None
    try:
        lock_file(descriptor, made / _LOCK)
        # Not before it is locked: others would take it for one that was left.
        folder = made.rename(parent / f"{_PREFIX}{secrets.token_hex(4)}")
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _parent() -> Path:
    usual = Path(tempfile.gettempdir())
    return usual if len(os.fsencode(usual)) <= _LONGEST_PARENT else Path("/tmp")  # noqa: S108 - mkdtemp makes the folder


def _remove_left(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError, Locked, StorageFailed):  # of another user, in use, or just removed by another
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                lock_file(descriptor, folder / _LOCK)
                if folder.stat().st_uid == os.getuid():
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
