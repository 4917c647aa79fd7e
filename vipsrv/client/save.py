"""Write a result to a file so that the file is never seen half written."""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path


def save(data: bytes, path: Path, *, follow_symlinks: bool = True) -> None:
    """Write ``data`` to a file. Readers see either the old content or all of the new. The mode is kept.

    A symbolic link is followed, and a device or a pipe is written to directly. Without ``follow_symlinks``
    the name itself is replaced, whatever it is: a link that somebody placed there cannot choose the file that
    is written. Raises ``OSError``.
    """
    if follow_symlinks:
        if path.exists() and not path.is_file():
            # There is no file to replace. The path is not resolved: for a pipe, /dev/stdout resolves to a
            # text that is not a path.
            try:
                path.write_bytes(data)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from error
            return
        path = path.resolve()
    part = path.with_name(f".vipsrv-{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:  # fails if the name exists, also as a link
            mode = _mode(path)
            if mode is not None:
                os.chmod(file.fileno() if os.chmod in os.supports_fd else part, mode)  # noqa: PTH101 - descriptor
            file.write(data)
        os.replace(part, path)  # noqa: PTH105 - Path.replace names only one of the two paths in its error
    except BaseException as error:
        with suppress(OSError):  # if the part could not be made, the error to report is the first one
            part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _mode(path: Path) -> int | None:
    """Return the permissions of a regular file, or ``None`` if there is none of that name."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    return stat.S_IMODE(mode) if stat.S_ISREG(mode) else None
