"""Writes a file that is seen as a whole or not at all, and of which a killed process leaves nothing.

The file has no name until it is complete, where the file system can make such files (``O_TMPFILE``: ext4,
XFS, Btrfs, tmpfs). The others (NFS) get one under a temporary name that is renamed, which takes more CPU
time: there a process that is killed may leave a file that ``is_temporary`` knows. So it may here in the
moment in which an older file is replaced.
"""

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

_PREFIX = ".vipsrv-"
_SUFFIX = ".part"

_NAMELESS = getattr(os, "O_TMPFILE", 0)
_NOT_HERE = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}
"""Errors of a file system or a kernel that makes no files without a name."""


def write_whole(path: str, data: bytes, *, lasting: bool) -> None:
    """Write ``data`` to ``path`` and replace what is there. ``lasting`` waits until it is on the disk.

    Raises ``OSError``; then ``path`` is what it was. It is absolute, and its folder must exist.
    """
    folder = os.path.dirname(path)  # noqa: PTH120 - a Path takes longer for each result
    if not (_NAMELESS and _write_nameless(path, folder, data, lasting=lasting)):
        _write_named(path, data, lasting=lasting)
    if lasting:
        _sync_folder(folder)


def temporary_name() -> str:
    """Return a name for a file that is being written."""
    return f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"


def is_temporary(name: str) -> bool:
    """Whether a file is being written, or was when a process was killed."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def _write_nameless(path: str, folder: str, data: bytes, *, lasting: bool) -> bool:
    """Return whether the file system could do it."""
    try:
        descriptor = os.open(folder, _NAMELESS | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in _NOT_HERE:
            return False
        raise
    try:
        _write_all(descriptor, data, lasting=lasting)
        try:
            _name(descriptor, path)
        except FileExistsError:
            part = _temporary(path)  # a link cannot replace, a rename can
            _name(descriptor, part)
            _replace(part, path)
    except FileNotFoundError:  # /proc is not mounted, or the folder has gone, which the other way will find
        return False
    finally:
        os.close(descriptor)
    return True


def _write_named(path: str, data: bytes, *, lasting: bool) -> None:
    part = _temporary(path)
    descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    try:
        _write_all(descriptor, data, lasting=lasting)
    except BaseException:
        part.unlink()
        raise
    finally:
        os.close(descriptor)
    _replace(part, path)


def _name(descriptor: int, path: str | Path) -> None:
    # With src_dir_fd Python calls linkat, which follows the link in /proc, and not link, which does not.
    os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)


def _replace(part: Path, path: str) -> None:
    try:
        part.replace(path)
    except BaseException:
        with suppress(OSError):  # the error to tell is the first one
            part.unlink()
        raise


def _temporary(path: str) -> Path:
    return Path(path).with_name(temporary_name())


def _write_all(descriptor: int, data: bytes, *, lasting: bool) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
    if lasting:
        os.fsync(descriptor)


def _sync_folder(folder: str) -> None:
    """Wait until the names in ``folder`` are on its disk. Some network file systems have no such call."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)
